package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// taken is what a backup has, read as a Take does it.
type taken struct {
	files map[string]string
	fail  error
}

func (k *taken) Begin(Head) error { k.files = map[string]string{}; return nil }
func (k *taken) File(name string, size int64, _ time.Time, r io.Reader) error {
	text, err := io.ReadAll(r)
	if err == nil && int64(len(text)) != size {
		err = fmt.Errorf("%s: %d bytes, not %d", name, len(text), size)
	}
	k.files[name] = string(text)
	return errors.Join(err, k.fail)
}

// directory makes a data directory, and a copy of a database that is none.
func directory(t testing.TB) (data, db string) {
	t.Helper()
	data, db = t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(data, "node.key"): "key", filepath.Join(data, "version"): "1\n", filepath.Join(data, "lock"): "7\n",
		filepath.Join(data, ".x"): "hidden", filepath.Join(data, "admin.addr"): "here", filepath.Join(data, "empty"): "",
		filepath.Join(data, "a name"): "strange", filepath.Join(data, "large"): strings.Repeat("x", maxSmall+1),
		filepath.Join(db, "000001.sst"): strings.Repeat("table", 100_000), filepath.Join(db, "MANIFEST-000001"): "manifest",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(data, "db"), 0o700), os.Mkdir(filepath.Join(data, "folder"), 0o700),
		os.Symlink(filepath.Join(data, "node.key"), filepath.Join(data, "linked"))); err != nil {
		t.Fatal(err)
	}
	return data, db
}

// written is a backup of that.
func written(t testing.TB) []byte {
	t.Helper()
	data, db := directory(t)
	files, left, err := Collect(data, db)
	if want := "[a name folder large]"; err != nil || fmt.Sprint(left) != want {
		t.Fatalf("left out %v, want %s: %v", left, want, err)
	}
	var b bytes.Buffer
	if err := Write(&b, Head{Layout: 1, PeerID: "12D3", Made: time.Unix(1_700_000_000, 0).UTC()}, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var inBackup = map[string]string{"node.key": "key", "linked": "key", "empty": "",
	"db/000001.sst": strings.Repeat("table", 100_000), "db/MANIFEST-000001": "manifest"}

// TestRoundTrip: what is written is read, and nothing else.
func TestRoundTrip(t *testing.T) {
	text := written(t)
	var k taken
	h, err := Read(bytes.NewReader(text), &k)
	if err != nil || h.PeerID != "12D3" || h.Files != 5 || h.Format != Format {
		t.Errorf("%+v, %v", h, err)
	}
	if !maps.Equal(k.files, inBackup) {
		t.Errorf("%d files came", len(k.files))
	}
	if _, err := Read(bytes.NewReader(text), nil); err != nil {
		t.Error(err)
	}
	k.fail = errors.New("the disk is full")
	if _, err := Read(bytes.NewReader(text), &k); !errors.Is(err, k.fail) {
		t.Errorf("what the reader's owner says: %v", err)
	}
}

// TestDamage: a backup that ends early, wherever, or in which anything is changed that says something, is refused.
func TestDamage(t *testing.T) {
	text := written(t)
	refused := func(what string, damaged []byte) {
		t.Helper()
		_, err := Read(bytes.NewReader(damaged), nil)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range len(text) {
		if n < 300 || n > len(text)-300 || n%13 == 0 {
			refused(fmt.Sprintf("the first %d bytes", n), text[:n])
		}
	}
	for i := 10; i < len(text); i += 7 { // gzip's own head says nothing
		damaged := bytes.Clone(text)
		damaged[i] ^= 0x10
		var k taken
		if _, err := Read(bytes.NewReader(damaged), &k); err == nil && maps.Equal(k.files, inBackup) {
			continue // bits that fill a byte say nothing
		}
		refused(fmt.Sprintf("byte %d changed", i), damaged)
	}
	newer := archive(t, func(w *tar.Writer) { put(w, headName, `{"format":2,"layout":1}`) })
	newer[len(newer)-5]++ // in the checksum
	refused("newer, so it says", newer)
	refused("something behind", append(bytes.Clone(text), 0))
	refused("twice", append(bytes.Clone(text), text...))
	refused("a text", []byte("hello"))
}

// archive makes an archive by hand.
func archive(t testing.TB, add func(t *tar.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	add(w)
	_ = w.Close() // some are not whole on purpose
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(w *tar.Writer, name, text string) {
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text))})
	_, _ = io.WriteString(w, text)
}

func head(files int, size int64) string {
	text, _ := json.Marshal(Head{Format: Format, Layout: 1, Files: files, Bytes: size})
	return string(text)
}

func sums(files ...string) (text string) {
	for i := 0; i < len(files); i += 2 {
		text += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(files[i+1])), files[i])
	}
	return text
}

// TestHostile: what no backup has is refused, by its name, before much is read.
func TestHostile(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		add  func(w *tar.Writer)
	}{
		"nothing":         {"it ends in the middle", func(*tar.Writer) {}},
		"no head":         {"it comes first", func(w *tar.Writer) { put(w, "a", "x") }},
		"bad head":        {"invalid character", func(w *tar.Writer) { put(w, headName, "{x") }},
		"long head":       {"at most", func(w *tar.Writer) { put(w, headName, strings.Repeat(" ", maxHead+1)) }},
		"absurd":          {"cannot be", func(w *tar.Writer) { put(w, headName, head(1, maxBytes+1)) }},
		"newer":           {"newer version", func(w *tar.Writer) { put(w, headName, `{"format":2,"layout":1}`) }},
		"newer directory": {"newer version", func(w *tar.Writer) { put(w, headName, `{"format":1,"layout":99}`) }},
		"huge": {"more than there can be", func(w *tar.Writer) {
			put(w, headName, head(1, maxBytes))
			_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 40})
		}},
		"more than said": {"more than there can be", func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, "a", "xy") }},
		"more files":     {"more than there can be", func(w *tar.Writer) { put(w, headName, head(1, 9)); put(w, "a", "x"); put(w, "b", "x") }},
		"fewer files":    {"were to come", func(w *tar.Writer) { put(w, headName, head(2, 1)); put(w, "a", "x"); put(w, sumsName, sums("a", "x")) }},
		"twice":          {"twice", func(w *tar.Writer) { put(w, headName, head(2, 2)); put(w, "a", "x"); put(w, "a", "x") }},
		"no sums":        {"it ends in the middle", func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, "a", "x") }},
		"other sums":     {"is not there", func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, "a", "x"); put(w, sumsName, sums("b", "x")) }},
		"wrong sum":      {"not what was backed up", func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, "a", "x"); put(w, sumsName, sums("a", "y")) }},
		"behind the sums": {"follows", func(w *tar.Writer) {
			put(w, headName, head(1, 1))
			put(w, "a", "x")
			put(w, sumsName, sums("a", "x"))
			put(w, "b", "x")
		}},
	} {
		var e *Error
		_, err := Read(bytes.NewReader(archive(t, c.add)), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &e) && !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, name := range []string{"../a", "/a", "a/b", "db/../a", "db/a/b", "db", "db/", ".a", "db/.a", "a\\b", "a\x00", "", "a b", "é", strings.Repeat("a", 200), headName} {
		if _, err := Read(bytes.NewReader(archive(t, func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, name, "x") })), nil); err == nil {
			t.Errorf("%q is read", name)
		}
	}
	for _, kind := range []byte{tar.TypeSymlink, tar.TypeLink, tar.TypeDir, tar.TypeFifo, tar.TypeChar, tar.TypeGNUSparse} {
		_, err := Read(bytes.NewReader(archive(t, func(w *tar.Writer) {
			put(w, headName, head(1, 0))
			_ = w.WriteHeader(&tar.Header{Typeflag: kind, Name: "a", Linkname: "/etc/passwd"})
		})), nil)
		if err == nil {
			t.Errorf("kind %q is read", kind)
		}
	}
}

// FuzzRead: what is read as a backup is the same when it is written again. What is not compressed is, so that changes get as
// far as the archive.
func FuzzRead(f *testing.F) {
	for _, text := range [][]byte{
		archive(f, func(w *tar.Writer) {
			put(w, headName, head(2, 3))
			put(w, "node.key", "x")
			put(w, "db/000001.log", "yz")
			put(w, sumsName, sums("node.key", "x", "db/000001.log", "yz"))
		}),
		archive(f, func(w *tar.Writer) { put(w, headName, head(1, 1)); put(w, "a", "x"); put(w, sumsName, sums("a", "x")) }),
		archive(f, func(w *tar.Writer) { put(w, headName, head(0, 0)); put(w, sumsName, "") }),
	} {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			f.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
		f.Add(plain, false)
	}
	f.Add([]byte("\x1f\x8b\x08"), true)
	f.Fuzz(func(t *testing.T, text []byte, compressed bool) {
		if !compressed {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(text)
			_ = z.Close()
			text = b.Bytes()
		}
		var k taken
		h, err := Read(bytes.NewReader(text), &k)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		var files []File
		for name, text := range k.files {
			if !validName(name) {
				t.Errorf("%q came", name)
			}
			files = append(files, File{name: name, data: []byte(text), size: int64(len(text)), date: h.Made})
		}
		var b bytes.Buffer
		if err := Write(&b, h, files); err != nil {
			t.Fatal(err)
		}
		var again taken
		if _, err := Read(&b, &again); err != nil || !maps.Equal(again.files, k.files) {
			t.Errorf("once more: %v", err)
		}
	})
}
