//go:build tools

// Package tools pins the newest Node.js language host that is a tagged Go module.
package tools

import _ "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs"
