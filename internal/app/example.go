package app

import _ "embed"

//go:embed example.yaml
var example string

//go:embed rules.example.yaml
var exampleRules string

// Example returns a commented configuration file that passes every check but
// those of the files that it names.
func Example() string { return example }

// ExampleRules returns a commented rules file to go with [Example].
func ExampleRules() string { return exampleRules }
