package app

import _ "embed"

//go:embed example.yaml
var example string

//go:embed policy.example.cedar
var examplePolicy string

// Example returns a commented configuration file that passes every check but
// those of the files that it names.
func Example() string { return example }

// ExamplePolicy returns a commented policy file to go with [Example].
func ExamplePolicy() string { return examplePolicy }
