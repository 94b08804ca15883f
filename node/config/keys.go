package config

import (
	"reflect"
	"strings"

	"github.com/mozzie-mqtt/mozzie/node/strict"
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

// suggestKey says what an unknown key of a section may have been meant to be: a similar key of the section,
// a key of that name in another one, or else any of its keys.
func suggestKey(name, prefix string, section reflect.Type) string {
	keys := strict.KeysOf(section)
	if near := strict.Nearest(name, keys); near != "" {
		return "did you mean " + near + "?"
	}
	for _, l := range leaves(&Config{}) {
		if l.key == name || strings.HasSuffix(l.key, "."+name) {
			return "did you mean " + l.key + "?"
		}
	}
	return strict.Suggest(name, keys)
}
