package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of an account, in bytes and numbers.
const (
	MaxName   = 256
	MaxGroups = 64
)

// Account is somebody who logs in.
type Account struct {
	Name string
	// Hash is the zero Hash where there is no password: who has a certificate in that name can log in, and nobody else.
	Hash   Hash
	Groups []string // sorted, each once
	// Admin may do everything: no rule binds an admin.
	Admin bool
}

// Check says what is wrong with an account, and brings its groups into order.
func (a *Account) Check() error {
	if err := CheckName(a.Name); err != nil {
		return fmt.Errorf("name %s", err)
	}
	if len(a.Groups) > MaxGroups {
		return fmt.Errorf("%d groups, at most %d are possible", len(a.Groups), MaxGroups)
	}
	for _, g := range a.Groups {
		if err := CheckName(g); err != nil {
			return fmt.Errorf("group %s", err)
		}
	}
	a.Groups = slices.Compact(slices.Sorted(slices.Values(a.Groups)))
	return nil
}

// CheckName says what is wrong with the name of an account or a group.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New(`"" is empty`)
	case name == "." || name == "..": // which no path can end in
		return fmt.Errorf("%q is none", name)
	case len(name) > MaxName:
		return fmt.Errorf("%.40q... has %d bytes, at most %d are possible", name, len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%q is not UTF-8", name)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q has characters that cannot be seen", name)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%q begins or ends with a blank", name)
	}
	return nil
}
