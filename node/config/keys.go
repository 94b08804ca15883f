package config

import (
	"reflect"
	"strings"
)

// leaf is one setting.
type leaf struct {
	key   string
	value reflect.Value
}

// leaves returns the settings of a configuration in the order of the struct.
func leaves(c *Config) []leaf { return appendLeaves(nil, "", reflect.ValueOf(c).Elem()) }

func appendLeaves(list []leaf, prefix string, v reflect.Value) []leaf {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		switch {
		case name == "":
		case isSection(v.Field(i).Type()):
			list = appendLeaves(list, prefix+name+".", v.Field(i))
		default:
			list = append(list, leaf{prefix + name, v.Field(i)})
		}
	}
	return list
}

// isSection reports whether a field holds settings rather than being one.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Listener]()
}

// fieldNamed returns the field of a section with a name, or the zero Value.
func fieldNamed(section reflect.Value, name string) reflect.Value {
	for i := range section.NumField() {
		if name != "" && section.Type().Field(i).Tag.Get("yaml") == name {
			return section.Field(i)
		}
	}
	return reflect.Value{}
}

// keysOf returns the names of the fields of a section.
func keysOf(section reflect.Type) []string {
	var names []string
	for i := range section.NumField() {
		if name := section.Field(i).Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// suggestKey says what an unknown key of a section may have been meant to be: a similar key of the section,
// a key of that name in another one, or else any of its keys.
func suggestKey(name, prefix string, section reflect.Type) string {
	keys := keysOf(section)
	if near := nearest(name, keys); near != "" {
		return "did you mean " + near + "?"
	}
	for _, l := range leaves(&Config{}) {
		if l.key == name || strings.HasSuffix(l.key, "."+name) {
			return "did you mean " + l.key + "?"
		}
	}
	return "known here: " + strings.Join(keys, ", ")
}

// nearest returns the candidate that a mistyped name was most likely meant to be, or "".
func nearest(name string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(name)/3)
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	for _, c := range candidates {
		if d := editDistance(fold(name), fold(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts the letters to insert, remove, replace or swap with their neighbour to make b of a
// (optimal string alignment).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
