package proto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	gproto "google.golang.org/protobuf/proto"
)

// The seeds are in testdata/frames, one file each, in hex: the frames of the table and what once was wrong or
// may be. The fuzzer begins with them, and plain `go test` runs them all.

const seedDir = "testdata/frames"

// seeds reads the seeds by their names.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(seedDir, "*.hex"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		text, err := os.ReadFile(f) //nolint:gosec // a test's own file
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".hex")] = unhex(t, string(text))
	}
	return all
}

// seedName is the file name of a frame of the table.
func seedName(c frameCase) string { return strings.ReplaceAll(strings.ToLower(c.name), " ", "-") }

// TestSeeds: every frame of the table is a seed, and so are the broken ones. SEEDS=write writes the former.
func TestSeeds(t *testing.T) {
	if os.Getenv("SEEDS") == "write" {
		for _, c := range frames() {
			text := hex.EncodeToString(unhex(t, c.hex)) + "\n"
			if err := os.WriteFile(filepath.Join(seedDir, seedName(c)+".hex"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	have := seeds(t)
	for _, c := range frames() {
		if !bytes.Equal(have[seedName(c)], unhex(t, c.hex)) {
			t.Errorf("%s/%s.hex is not the table's frame; run SEEDS=write go test -run TestSeeds ./proto", seedDir, seedName(c))
		}
	}
	for _, name := range []string{"bad-length-five-bytes", "bad-length-over-cap", "bad-no-kind", "bad-groups-nested", "bad-publish-cut",
		"odd-unknown-kind", "odd-unknown-field", "odd-fields-twice", "odd-long-length", "odd-packed-acks"} {
		if have[name] == nil {
			t.Errorf("%s/%s.hex is missing", seedDir, name)
		}
	}
}

// FuzzFrame: no bytes make the decoder panic; what decodes encodes again to what decodes to the same; and
// that encoding is the only one that comes of it.
func FuzzFrame(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := decodeAll(b); err != nil {
			t.Fatal(err)
		}
	})
}

func decodeAll(b []byte) error {
	for len(b) > 0 {
		kind, body, rest, need, err := Next(b)
		if err != nil {
			if errors.Is(err, ErrShort) && (need <= len(b) || need > MaxFrame+4) {
				return fmt.Errorf("%d bytes needed of a frame of which %d are there", need, len(b))
			}
			return nil
		}
		if len(rest) >= len(b) {
			return errors.New("Next does not get on")
		}
		b = rest
		f, err := new(Decoder).Decode(kind, body, now)
		if err != nil {
			if f != nil || !errors.Is(err, ErrMalformed) {
				return fmt.Errorf("kind %d: %v with error %w", kind, f, err)
			}
			continue
		}
		if f == nil {
			if allKinds()[kind] {
				return fmt.Errorf("kind %d is ignored", kind)
			}
			continue
		}
		if KindOf(f) != kind {
			return fmt.Errorf("kind %d decodes to %T", kind, f)
		}
		if err := again(f); err != nil {
			return err
		}
	}
	return nil
}

// again encodes a frame and decodes it, twice.
func again(f any) error {
	first := AppendFrame(nil, f, now)
	back, err := one(first)
	if err != nil {
		return fmt.Errorf("%T does not come back: %w", f, err)
	}
	if !same(back, f) {
		return fmt.Errorf("%+v comes back as %+v", f, back)
	}
	if second := AppendFrame(nil, back, now); !bytes.Equal(first, second) {
		return fmt.Errorf("encoded again %x is %x", first, second)
	}
	return nil
}

// FuzzOracle: generated code and the codecs written by hand agree on what a data frame says.
func FuzzOracle(f *testing.F) {
	for _, b := range seeds(f) {
		if kind, body, _, _, err := Next(b); err == nil && (kind == KindPublish || kind == KindDeliver) {
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, err := new(Decoder).Decode(KindPublish, body, now); err == nil {
			checkOracle(t, body, p, oraclePublish(p.(*Publish)))
		}
		if d, err := new(Decoder).Decode(KindDeliver, body, now); err == nil {
			checkOracle(t, body, d, oracleDeliver(d.(*Deliver)))
		}
	})
}

// checkOracle: what was decoded by hand, encoded by generated code, is the same frame.
func checkOracle(t *testing.T, body []byte, frame any, oracle gproto.Message) {
	t.Helper()
	b, err := gproto.MarshalOptions{Deterministic: true}.Marshal(oracle)
	if err != nil {
		t.Fatalf("%x decodes to what can't be encoded: %v", body, err)
	}
	back, err := new(Decoder).Decode(KindOf(frame), b, now)
	if err != nil || !same(back, frame) {
		t.Fatalf("%+v is %+v by way of generated code: %v", frame, back, err)
	}
}

// TestDecodeAllocates: decoding allocates no more than a multiple of what is there.
func TestDecodeAllocates(t *testing.T) {
	for name, b := range seeds(t) {
		kind, body, _, _, err := Next(b)
		if err != nil {
			continue
		}
		const runs = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			_, _ = new(Decoder).Decode(kind, body, now)
		}
		runtime.ReadMemStats(&after)
		if got, most := (after.TotalAlloc-before.TotalAlloc)/runs, uint64(4000+100*len(body)); got > most { //nolint:gosec // a size
			t.Errorf("%s: %d bytes for %d, want %d at most", name, got, len(body), most)
		}
	}
}
