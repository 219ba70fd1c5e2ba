//go:build tools

// Package tools pins the Pulumi engine; nothing of it is linked into the package.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
