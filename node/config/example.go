package config

import (
	"regexp"
	"strings"
)

// exampleHead begins the example.
const exampleHead = `# The configuration of a Mozzie node. Every setting is here with what it does and its default; to change one, delete
# the "#" right before its name and write what you want. What is not set follows the defaults of the version that runs.
#
# "mozzie config check FILE" says whether a file is right. Some settings can be read again while the node runs: see
# "mozzie reload --help". For all others, restart it.

`

// shown is a line of what Show writes that stays as it is: an explanation, the name of a section, or nothing.
var shown = regexp.MustCompile(`^ *(#.*|[a-z_]+:)?$`)

// Example returns a configuration file that explains every setting and sets none, for a node that is a service.
func Example() string {
	c := Default()
	c.Data = "/var/lib/mozzie"
	text := strings.Builder{}
	text.WriteString(exampleHead)
	indent := ""
	for line := range strings.Lines(c.Show()) {
		line = strings.TrimSuffix(line, "\n")
		setting, isSetting := strings.CutSuffix(line, " # default")
		switch {
		case isSetting: // what follows it, indented more, is its list
			indent = line[:len(line)-len(strings.TrimLeft(line, " "))]
		case shown.MatchString(line):
			text.WriteString(line + "\n")
			continue
		}
		text.WriteString(indent + "#" + strings.TrimPrefix(setting, indent) + "\n")
	}
	return text.String()
}
