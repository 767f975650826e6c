package policy

import (
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// groups is groups.yaml: names of groups, and who is in each.
type groups struct {
	Callers  map[string][]string `yaml:"callers"`
	Partners map[string][]string `yaml:"partners"`
	Purposes map[string][]string `yaml:"purposes"`
}

// parse reads a groups file. A group holds names and no other group, so that
// who is in it can be read off one line.
func (g *groups) parse(f File) error {
	if err := yamlfile.Decode(f.Name, []byte(f.Text), g); err != nil {
		return err
	}
	for kind, all := range map[string]map[string][]string{"callers": g.Callers, "partners": g.Partners, "purposes": g.Purposes} {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !mandate.Name(name) {
				return mandate.Invalid(f.Name, "%s: %.64q is not a name", kind, name)
			}
			for _, member := range all[name] {
				if !mandate.Name(member) {
					return mandate.Invalid(f.Name, "%s: %s: %.64q is not a name; there are no wildcards here", kind, name, member)
				}
			}
		}
	}
	return nil
}

// has reports whether there is a group of that type and name.
func (g *groups) has(uid types.EntityUID) bool {
	_, ok := map[types.EntityType]map[string][]string{
		typeCallerGroup: g.Callers, typePartnerGroup: g.Partners, typePurposeGroup: g.Purposes,
	}[uid.Type][string(uid.ID)]
	return ok
}

// entities returns every member with the groups that it is in.
func (g *groups) entities() types.EntityMap {
	parents := map[types.EntityUID][]types.EntityUID{}
	for _, kind := range []struct {
		member, group types.EntityType
		all           map[string][]string
	}{{typeCaller, typeCallerGroup, g.Callers}, {typePartner, typePartnerGroup, g.Partners}, {typePurpose, typePurposeGroup, g.Purposes}} {
		for name, members := range kind.all {
			for _, m := range members {
				uid := types.NewEntityUID(kind.member, types.String(m))
				parents[uid] = append(parents[uid], types.NewEntityUID(kind.group, types.String(name)))
			}
		}
	}
	out := make(types.EntityMap, len(parents))
	for uid, in := range parents {
		out[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(in...)}
	}
	return out
}
