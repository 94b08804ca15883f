// Package strict reads YAML files that people write: every value keeps the line that it stands in, and what is unknown,
// given twice or of the wrong type is refused with that line and with what would be right. Nothing is guessed.
//
// The configuration, the accounts and the access rules of a node are read with it.
package strict

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with what was given.
type Problem struct {
	Where string // FILE:LINE, an environment variable, a flag, or "" for a default
	Key   string // "" where the file as a whole is meant
	Text  string // what is wrong, and what would be right
}

func (p Problem) String() string {
	s := p.Text
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Where != "" {
		s = p.Where + ": " + s
	}
	return s
}

// Problems is the error of what is refused: everything that is wrong with it, one to a line.
type Problems []Problem

// maxShown is how many problems an error shows: a file of another kind has one in every line.
const maxShown = 50

func (ps Problems) Error() string {
	var lines []string
	for i, p := range ps {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps)-maxShown))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Err is the problems as an error: nil where there are none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
