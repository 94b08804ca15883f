package accounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/strict"
)

// RulesName is the name of the file of access rules in a data directory, where no other is configured.
const RulesName = "access.yaml"

// MaxRules is the largest file of rules that is read, in bytes.
const MaxRules = admin.MaxRules

// rulesFile is what a file of rules has.
type rulesFile struct {
	Rules []fileRule `yaml:"rules"`
}

type fileRule struct {
	Users     []string `yaml:"users"`
	Groups    []string `yaml:"groups"`
	Anonymous bool     `yaml:"anonymous"`
	Everyone  bool     `yaml:"everyone"`
	Publish   []string `yaml:"publish"`
	Subscribe []string `yaml:"subscribe"`
	Deny      fileDeny `yaml:"deny"`
}

type fileDeny struct {
	Publish   []string `yaml:"publish"`
	Subscribe []string `yaml:"subscribe"`
}

// Rules are access rules, and the file that they are from. They do not change.
type Rules struct {
	*access.Rules
	Text  []byte   // of the file
	where []string // each rule is, as FILE:LINE
}

// ReadRules reads a file of rules. The error is strict.Problems, or wraps fs.ErrNotExist or says otherwise why the file
// cannot be read.
func ReadRules(path string) (*Rules, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read the access rules %s: it is not a file", path)
	}
	var text []byte
	if err == nil && info.Size() <= MaxRules { // ParseRules refuses what is larger, by its size
		text, err = os.ReadFile(path)
	} else if err == nil {
		text = make([]byte, MaxRules+1)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("read the access rules %s: no permission for user %d", path, os.Getuid())
	case err != nil:
		return nil, fmt.Errorf("read the access rules: %w", err)
	}
	return ParseRules(path, text)
}

// ParseRules reads the text of a file of rules. The error is strict.Problems.
func ParseRules(name string, text []byte) (*Rules, error) {
	if len(text) > MaxRules {
		return nil, strict.Problems{{Where: name, Text: fmt.Sprintf("%d bytes, at most %d are read", len(text), MaxRules)}}
	}
	var f rulesFile
	at := map[string]string{}
	d := &strict.Decoder{File: name, Seen: func(key, where string) { at[key] = where }}
	if err := d.Decode(text, &f); err != nil {
		return nil, quoteHint(err)
	}
	p := parser{at: at}
	if _, said := at["rules"]; !said {
		return nil, strict.Problems{{Where: name, Text: "there are no rules in it, and what no rule allows is denied: write rules, or \"rules: []\" where that is meant"}}
	}
	var rules []access.Rule
	var where []string
	for i, r := range f.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		rules, where = append(rules, p.rule(key, r)), append(where, at[key])
	}
	if p.filters > access.MaxFilters {
		p.addf("rules", "%d filters, at most %d are possible", p.filters, access.MaxFilters)
	}
	if err := p.problems.Err(); err != nil {
		return nil, err
	}
	return &Rules{access.NewRules(rules), text, where}, nil
}

// quoteHint says what most likely is wrong where a filter was to be and is none: to YAML, # begins a comment.
func quoteHint(err error) error {
	var problems strict.Problems
	if !errors.As(err, &problems) {
		return err
	}
	for i := range problems {
		if p := &problems[i]; strings.HasPrefix(p.Text, "not valid YAML") || strings.HasSuffix(p.Text, "not nothing") {
			p.Text += ` (a filter that begins with # or % has to be in quotes: "#")`
		}
	}
	return problems
}

func (p *parser) rule(key string, f fileRule) access.Rule {
	if len(f.Users)+len(f.Groups) == 0 && !f.Anonymous && !f.Everyone {
		p.addf(key, "whom is it for? want users, groups, \"anonymous: true\" or \"everyone: true\"")
	}
	if len(f.Publish)+len(f.Subscribe)+len(f.Deny.Publish)+len(f.Deny.Subscribe) == 0 {
		p.addf(key, "it says nothing: want publish, subscribe or deny")
	}
	for list, names := range map[string][]string{".users": f.Users, ".groups": f.Groups} {
		for i, n := range names {
			if err := access.CheckName(n); err != nil {
				p.addf(fmt.Sprintf("%s%s[%d]", key, list, i), "%v", err)
			}
		}
	}
	for list, filters := range map[string][]string{".publish": f.Publish, ".subscribe": f.Subscribe, ".deny.publish": f.Deny.Publish, ".deny.subscribe": f.Deny.Subscribe} {
		p.filters += len(filters)
		for i, filter := range filters {
			if err := access.CheckFilter(filter); err != nil {
				p.addf(fmt.Sprintf("%s%s[%d]", key, list, i), "%v", err)
			}
		}
	}
	return access.Rule{Users: f.Users, Groups: f.Groups, Anonymous: f.Anonymous, Everyone: f.Everyone,
		Publish: f.Publish, Subscribe: f.Subscribe, DenyPublish: f.Deny.Publish, DenySubscribe: f.Deny.Subscribe}
}
