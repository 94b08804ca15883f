package mqttfront_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTags: what the code says to carry out of the specification is shown by a test that says so.
func TestTags(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	carriedOut, shown := map[string]string{}, map[string]bool{}
	tag := regexp.MustCompile(`\[MQTT-[0-9.]+-[0-9]+\]`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range tag.FindAllString(string(text), -1) {
			if strings.HasSuffix(file, "_test.go") {
				shown[what] = true
			} else {
				carriedOut[what] = file
			}
		}
	}
	for what, file := range carriedOut {
		if !shown[what] {
			t.Errorf("%s of %s is in no test", what, file)
		}
	}
}
