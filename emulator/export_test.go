package emulator

import (
	"maps"
	"slices"
)

// AdminRoutes lists the patterns of the admin API.
func (e *Emulator) AdminRoutes() []string { return slices.Sorted(maps.Keys(e.adminRoutes())) }
