package interop_test

// removeModules is called when all tests have run.
func removeModules() {}
