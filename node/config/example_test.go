package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestExample: the example sets nothing, has every setting, and is right when all that it has is set.
func TestExample(t *testing.T) {
	example := Example()
	env := []string{"STATE_DIRECTORY=/var/lib/mozzie"}
	want, err := Load(Sources{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(Sources{File: write(t, example), Env: env})
	if err != nil {
		t.Fatalf("%v\n%s", err, example)
	}
	if len(got.origins) > 0 {
		t.Errorf("it sets %v", got.origins)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with the example: %+v\nwithout: %+v", got, want)
	}

	all := regexp.MustCompile(`(?m)^( *)#([a-z_]+:|  )`).ReplaceAllString(example, "$1$2")
	got, err = Load(Sources{File: write(t, all), Env: env})
	if err != nil {
		t.Fatalf("with all that it has: %v\n%s", err, all)
	}
	for _, l := range leaves(&want) {
		if got.origins[l.key] == "" {
			t.Errorf("it does not have %s", l.key)
		}
	}
	got.origins, want.origins = nil, nil
	if got.Show() != want.Show() {
		t.Errorf("with all that it has: %+v\nby default: %+v", got, want)
	}
	for line := range strings.Lines(example) {
		if strings.Contains(line, "# default") {
			t.Errorf("it says where a value comes from: %s", line)
		}
	}
}
