//go:build tools

// Package tools pins the Pulumi engine. The Python package contains none of it.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
