//go:build tools

// Package tools pins the newest Python language host that is a tagged Go module.
package tools

import _ "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
