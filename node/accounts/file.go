// Package accounts keeps the accounts of a node in a file that people can read and change too, accounts.yaml in the data
// directory, and reads the access rules, which people write: they are replaced as a whole or not at all. A running node
// changes both through its API; the commands do it directly where no node runs.
//
// What is wrong with a file is refused with its name and the line; a file is taken as a whole or not at all.
package accounts

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/strict"
)

// FileName is the name of the file of accounts in a data directory.
const FileName = "accounts.yaml"

// maxFile is the largest file of accounts that is read, in bytes: room for 100,000 of ordinary size.
const maxFile = 32 << 20

// file is what a file of accounts has.
type file struct {
	Accounts []fileAccount `yaml:"accounts"`
	Deleted  []fileGone    `yaml:"deleted"`
}

type fileAccount struct {
	Name     string   `yaml:"name"`
	Password string   `yaml:"password"`
	Groups   []string `yaml:"groups"`
	Admin    bool     `yaml:"admin"`
	Changed  string   `yaml:"changed"`
}

type fileGone struct {
	Name    string `yaml:"name"`
	Changed string `yaml:"changed"`
}

// head explains the file to who opens it.
const head = `# Who may log in at this node. "mozzie passwd" and "mozzie accounts" change this file. You can too: take away the
# line "changed" of what you change, then have the running node read it with "mozzie reload".
`

// Parse reads the text of a file of accounts with at most so many. Entries whose file does not say when they were changed
// have the stamp 0. The error is strict.Problems.
func Parse(name string, text []byte, most int) ([]access.Entry, error) {
	if len(text) > maxFile {
		return nil, strict.Problems{{Where: name, Text: fmt.Sprintf("%d bytes, at most %d are read", len(text), maxFile)}}
	}
	var f file
	at := map[string]string{}
	d := &strict.Decoder{File: name, Seen: func(key, where string) { at[key] = where }}
	if err := d.Decode(text, &f); err != nil {
		return nil, err
	}
	p := parser{at: at, lines: map[string]string{}}
	for i, a := range f.Accounts {
		p.account(fmt.Sprintf("accounts[%d]", i), a)
	}
	for i, g := range f.Deleted {
		p.gone(fmt.Sprintf("deleted[%d]", i), g)
	}
	if len(f.Accounts) > most {
		p.addf(fmt.Sprintf("accounts[%d]", most), "%d accounts, at most %d are possible (limits.max_accounts)", len(f.Accounts), most)
	}
	return p.entries, p.problems.Err()
}

// parser checks what a file has.
type parser struct {
	at       map[string]string // where a key is
	lines    map[string]string // where a name was given before
	entries  []access.Entry
	filters  int // of rules
	problems strict.Problems
}

// addf adds a problem with a key, or with what it is in where that has no place of its own.
func (p *parser) addf(key, format string, args ...any) {
	where, ok := p.at[key]
	for outer := key; !ok && outer != ""; where, ok = p.at[outer] {
		outer = outer[:max(0, strings.LastIndexAny(outer, ".["))]
	}
	p.problems = append(p.problems, strict.Problem{Where: where, Key: key, Text: fmt.Sprintf(format, args...)})
}

// once refuses a name that was there before.
func (p *parser) once(key, name string) {
	if before, twice := p.lines[name]; twice {
		p.addf(key, "%q is there twice, the first time at %s", name, before)
		return
	}
	p.lines[name] = p.at[key]
}

func (p *parser) stamp(key, text string) access.Stamp {
	if text == "" {
		return 0
	}
	s, err := access.ParseStamp(text)
	if err != nil {
		p.addf(key+".changed", "%v; without this line, it was changed now", err)
	}
	return s
}

func (p *parser) account(key string, f fileAccount) {
	e := access.Entry{Account: access.Account{Name: f.Name, Groups: f.Groups, Admin: f.Admin}, Changed: p.stamp(key, f.Changed)}
	if err := e.Check(); err != nil {
		p.addf(key, "%v", err)
		return
	}
	p.once(key, f.Name)
	if f.Password != "" {
		var err error
		if e.Hash, err = access.ParseHash(f.Password); err != nil {
			p.addf(key+".password", "%v", err)
		}
	}
	p.entries = append(p.entries, e)
}

func (p *parser) gone(key string, f fileGone) {
	if err := access.CheckName(f.Name); err != nil {
		p.addf(key, "name %v", err)
		return
	}
	p.once(key, f.Name)
	p.entries = append(p.entries, access.Entry{Account: access.Account{Name: f.Name}, Deleted: true, Changed: p.stamp(key, f.Changed)})
}

// Format writes a table as Parse reads it. One table makes one text.
func Format(t *access.Table) []byte {
	var b bytes.Buffer
	b.WriteString(head)
	all := t.Entries()
	begin := "accounts:\n"
	for _, e := range all {
		if e.Deleted {
			continue
		}
		fmt.Fprintf(&b, "%s  - name: %s\n", begin, quote(e.Name))
		begin = ""
		if !e.Hash.IsZero() {
			fmt.Fprintf(&b, "    password: %s\n", e.Hash)
		}
		if len(e.Groups) > 0 {
			quoted := slices.Clone(e.Groups)
			for i := range quoted {
				quoted[i] = quote(quoted[i])
			}
			fmt.Fprintf(&b, "    groups: [%s]\n", strings.Join(quoted, ", "))
		}
		if e.Admin {
			b.WriteString("    admin: true\n")
		}
		fmt.Fprintf(&b, "    changed: %q\n", e.Changed)
	}
	begin = "deleted:\n"
	for _, e := range all {
		if e.Deleted {
			fmt.Fprintf(&b, "%s  - {name: %s, changed: %q}\n", begin, quote(e.Name), e.Changed)
			begin = ""
		}
	}
	return b.Bytes()
}

// quote puts text into quotes where YAML needs them, also within [ ] and { }.
func quote(s string) string {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_') {
			return strconv.Quote(s)
		}
	}
	if n := (&yaml.Node{Kind: yaml.ScalarNode, Value: s}); n.ShortTag() != "!!str" {
		return strconv.Quote(s) // true, null and the like
	}
	return s
}
