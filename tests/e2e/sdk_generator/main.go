// Command generate_sdk writes the Python SDK of a package: generate_sdk SCHEMA FOLDER
//
// `pulumi package gen-sdk` needs a language host that can generate, and the one that ./dev builds cannot. This program
// calls the same generator, in the version of the pinned engine.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"github.com/pulumi/pulumi/pkg/v3/codegen/python"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

func main() {
	log.SetFlags(0)
	text, err := os.ReadFile(os.Args[1])
	check(err)
	var spec schema.PackageSpec
	check(json.Unmarshal(text, &spec))
	references := schema.NewPluginLoader(nil) // the schema refers to no other package
	bound, problems, err := schema.BindSpec(spec, references, schema.ValidationOptions{})
	check(err)
	if problems.HasErrors() {
		log.Fatal(problems)
	}
	files, err := python.GeneratePackage("generate_sdk", bound, nil, references)
	check(err)
	for name, content := range files {
		path := filepath.Join(os.Args[2], name)
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		check(os.WriteFile(path, content, 0o644))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
