package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"unicode"

	"github.com/mozzie-mqtt/mozzie/node/strict"
)

// FileName is the configuration's name in a data directory.
const FileName = "mozzie.yaml"

// Sources is where a configuration comes from.
type Sources struct {
	// File is the YAML file, or "": then $MOZZIE_CONFIG is read, or mozzie.yaml in the data directory if
	// there is one.
	File string
	// Env is the environment, as os.Environ returns it.
	Env []string
	// Flags are the flags that were given on the command line.
	Flags []Flag
}

// Flag is a flag that sets a key.
type Flag struct {
	Name   string   // as the user wrote it: "--mqtt"
	Key    string   // "mqtt.listeners"
	Values []string // one, or the whole of a list
	Joined bool     // a list is in one value, for SplitList
}

// Problem is one thing that is wrong with a configuration.
type Problem = strict.Problem

// Problems is the error of a configuration that is refused: everything that is wrong with it, one to a line.
type Problems = strict.Problems

// Load reads and validates a configuration. What is wrong with it comes back as Problems; another error says
// that a file cannot be read.
func Load(src Sources) (Config, error) {
	c := Default()
	env := environment(src.Env)
	c.Data = DefaultData(env)
	if err := c.loadFile(src, env); err != nil {
		return c, err
	}
	if err := append(c.applyEnv(src.Env), c.applyFlags(src.Flags)...).Err(); err != nil {
		return c, err
	}
	c.derive()
	return c, c.Validate()
}

// loadFile finds the file and lays it over the configuration.
func (c *Config) loadFile(src Sources, env map[string]string) error {
	file := src.File
	if file == "" {
		file = env["MOZZIE_CONFIG"]
	}
	data := ""
	if file == "" {
		if data = dataDirectory(src, env); data == "" {
			return nil // which Validate refuses
		}
		file = filepath.Join(data, FileName)
	}
	text, err := readFile(file)
	if data != "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := decodeFile(file, text, c); err != nil {
		return err
	}
	where, set := c.origins["data"]
	switch {
	case set && !filepath.IsAbs(c.Data):
		return Problems{{Where: where, Key: "data", Text: fmt.Sprintf("want an absolute path, not %q", c.Data)}}
	case set && data != "" && filepath.Clean(c.Data) != filepath.Clean(data):
		return Problems{{Where: where, Key: "data", Text: fmt.Sprintf("this file is in the data directory %s and cannot name another, %s; use --config for that", data, c.Data)}}
	}
	return nil
}

func readFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	if !info.Mode().IsRegular() && info.Mode()&fs.ModeNamedPipe == 0 {
		return nil, fmt.Errorf("read the configuration %s: it is not a file", file)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read the configuration %s: it has %d bytes, more than a configuration can need (%d)", file, info.Size(), maxFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	return text, nil
}

// unreadable is a file that cannot be read: the error, worded for the person who named it.
func unreadable(file string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = quietError{"there is no such file", err}
	case errors.Is(err, fs.ErrPermission):
		err = quietError{fmt.Sprintf("no permission for user %d", os.Getuid()), err}
	}
	return fmt.Errorf("read the configuration %s: %w", file, err)
}

// quietError is an error with another text.
type quietError struct {
	text string
	error
}

func (e quietError) Error() string { return e.text }
func (e quietError) Unwrap() error { return e.error }

// dataDirectory is the data directory as far as it is known before a file is read.
func dataDirectory(src Sources, env map[string]string) string {
	for _, f := range src.Flags {
		if f.Key == "data" && len(f.Values) > 0 {
			return f.Values[len(f.Values)-1]
		}
	}
	if data := env["MOZZIE_DATA"]; data != "" {
		return data
	}
	return DefaultData(env)
}

// What Kubernetes and Docker links put into the environment for a service that is called mozzie.
var serviceLink = regexp.MustCompile(`_(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// envName is the environment variable of a key.
func envName(key string) string {
	return "MOZZIE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func (c *Config) applyEnv(env []string) (problems Problems) {
	byName := map[string]leaf{}
	names := []string{"MOZZIE_CONFIG"}
	for _, l := range leaves(c) {
		byName[envName(l.key)] = l
		names = append(names, envName(l.key))
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "MOZZIE_") || name == "MOZZIE_CONFIG" || name == "MOZZIE_ADMIN_TOKEN" { // which is for the commands
			continue
		}
		l, ok := byName[name]
		if !ok {
			if near := strict.Nearest(name, names); near != "" {
				problems = append(problems, Problem{Where: name, Text: "unknown environment variable; did you mean " + near + "?"})
			} else if !serviceLink.MatchString(name) {
				problems = append(problems, Problem{Where: name, Text: "unknown environment variable; \"mozzie config show\" lists all settings"})
			}
			continue
		}
		values := []string{value}
		if l.value.Kind() == reflect.Slice {
			values = SplitList(value)
		}
		problems = append(problems, c.apply(l, name, values)...)
	}
	return problems
}

func (c *Config) applyFlags(flags []Flag) (problems Problems) {
	byKey := map[string]leaf{}
	var keys []string
	for _, l := range leaves(c) {
		byKey[l.key] = l
		keys = append(keys, l.key)
	}
	for _, f := range flags {
		l, ok := byKey[f.Key]
		if !ok {
			hint := "\"mozzie config show\" lists all settings"
			if near := strict.Nearest(f.Key, keys); near != "" {
				hint = "did you mean " + near + "?"
			}
			problems = append(problems, Problem{Where: f.Name, Key: f.Key, Text: "unknown key; " + hint})
			continue
		}
		if _, secret := l.value.Interface().(Secret); secret && strings.TrimSpace(strings.Join(f.Values, "")) == "" {
			// Mostly what a command in "$(...)" did not print. To go on without would make a swarm that nobody meant.
			problems = append(problems, Problem{Where: f.Name, Key: f.Key, Text: "is empty: leave it out, or give what it should be"})
			continue
		}
		values := f.Values
		if f.Joined && l.value.Kind() == reflect.Slice {
			values = SplitList(strings.Join(values, ","))
		}
		problems = append(problems, c.apply(l, f.Name, values)...)
	}
	return problems
}

// SplitList splits the text of a list that is not in YAML: at commas and white space.
func SplitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// apply sets a key from outside of the file. A list is replaced as a whole.
func (c *Config) apply(l leaf, where string, values []string) (problems Problems) {
	for key := range c.origins {
		if strings.HasPrefix(key, l.key+"[") {
			delete(c.origins, key)
		}
	}
	c.setOrigin(l.key, where)
	set := func(value string, into reflect.Value) {
		if err := setText(value, into); err != nil {
			problems = append(problems, Problem{Where: where, Key: l.key, Text: err.Error()})
		}
	}
	if l.value.Kind() != reflect.Slice {
		set(values[len(values)-1], l.value)
		return problems
	}
	list := reflect.MakeSlice(l.value.Type(), len(values), len(values))
	for i, value := range values {
		set(value, list.Index(i))
	}
	l.value.Set(list)
	return problems
}

// derive sets the defaults that depend on other settings.
func (c *Config) derive() {
	if abs, err := filepath.Abs(c.Data); err == nil && c.Data != "" {
		c.Data = abs
	}
	if _, set := c.origins["swarm.listen"]; !set {
		c.Swarm.Listen = defaultListen(c.Swarm.Open)
	}
}

// Refuse returns the Problems that say that a key's value cannot be, for what only the packages below can tell.
func (c *Config) Refuse(key, text string) error {
	return Problems{{Where: c.origins[key], Key: key, Text: text}}
}

func (c *Config) setOrigin(key, where string) {
	if c.origins == nil {
		c.origins = map[string]string{}
	}
	c.origins[key] = where
}

func environment(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		m[name] = value
	}
	return m
}

// DefaultData is the data directory of a node that was not told one: what systemd made for the service
// ($STATE_DIRECTORY), /var/lib/mozzie for root and system users, and otherwise mozzie in the user's state
// directory ($XDG_STATE_HOME, or ~/.local/state).
func DefaultData(env map[string]string) string {
	if dir, _, _ := strings.Cut(env["STATE_DIRECTORY"], ":"); dir != "" {
		return dir
	}
	return defaultData(env, os.Getuid())
}

func defaultData(env map[string]string, uid int) string {
	firstPerson := 1000 // as Debian and its like count
	if runtime.GOOS == "darwin" {
		firstPerson = 501
	}
	home := env["HOME"]
	switch {
	case uid >= 0 && uid < firstPerson, home == "" && env["XDG_STATE_HOME"] == "":
		return "/var/lib/mozzie"
	case filepath.IsAbs(env["XDG_STATE_HOME"]):
		return filepath.Join(env["XDG_STATE_HOME"], "mozzie")
	}
	return filepath.Join(home, ".local", "state", "mozzie")
}
