package topic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

type at struct {
	filter string
	key    int
}

// TestTreeOracle changes a tree and a plain map alike, and compares what they find.
func TestTreeOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var tree Tree[int, int]
	model := map[at]int{}
	for step := range 20000 {
		w := at{randomFilter(r), r.IntN(40)}
		version := tree.Version()
		switch v, had := model[w]; r.IntN(5) {
		case 0, 1:
			if old, ok := tree.Set(w.filter, w.key, step); old != v || ok != had {
				t.Fatalf("Set(%v) = %v, %v; want %v, %v", w, old, ok, v, had)
			}
			model[w] = step
			if tree.Version() == version {
				t.Fatal("the version stands still")
			}
		case 2, 3:
			if old, ok := tree.Delete(w.filter, w.key); old != v || ok != had {
				t.Fatalf("Delete(%v) = %v, %v; want %v, %v", w, old, ok, v, had)
			}
			delete(model, w)
		default:
			if got, ok := tree.Get(w.filter, w.key); got != v || ok != had {
				t.Fatalf("Get(%v) = %v, %v; want %v, %v", w, got, ok, v, had)
			}
		}
		if tree.Len() != len(model) {
			t.Fatalf("Len is %d, want %d", tree.Len(), len(model))
		}
		if step%100 > 0 {
			continue
		}
		name, want, got := randomTopic(r), map[at]int{}, map[at]int{}
		for w, v := range model {
			if slowMatch(w.filter, name) {
				want[w] = v
			}
		}
		tree.Match(name, func(f string, k, v int) { got[at{f, k}] = v })
		if !maps.Equal(got, want) {
			t.Fatalf("%q: found %v, want %v", name, got, want)
		}
		all := map[at]int{}
		tree.All(func(f string, k, v int) bool { all[at{f, k}] = v; return true })
		if !maps.Equal(all, model) {
			t.Fatal("All differs")
		}
		n := 0
		tree.Each(w.filter, func(k, v int) {
			if n++; model[at{w.filter, k}] != v {
				t.Fatalf("Each(%q) shows %d: %d", w.filter, k, v)
			}
		})
	}
	for w := range model {
		tree.Delete(w.filter, w.key)
	}
	if !tree.root.empty() || tree.Len() != 0 {
		t.Error("the empty tree has nodes")
	}
}

func TestNamesOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var names Names[int]
	model := map[string]int{}
	for step := range 6000 {
		name := randomTopic(r)
		v, had := model[name]
		switch r.IntN(3) {
		case 0:
			if old, ok := names.Set(name, step); old != v || ok != had {
				t.Fatalf("Set(%q) = %v, %v", name, old, ok)
			}
			model[name] = step
		case 1:
			if old, ok := names.Delete(name); old != v || ok != had {
				t.Fatalf("Delete(%q) = %v, %v", name, old, ok)
			}
			delete(model, name)
		default:
			if got, ok := names.Get(name); got != v || ok != had {
				t.Fatalf("Get(%q) = %v, %v", name, got, ok)
			}
		}
		if names.Len() != len(model) {
			t.Fatalf("Len is %d, want %d", names.Len(), len(model))
		}
		filter, want, got := randomFilter(r), map[string]int{}, map[string]int{}
		for n, v := range model {
			if slowMatch(filter, n) {
				want[n] = v
			}
		}
		names.Match(filter, func(n string, v int) bool { got[n] = v; return true })
		if !maps.Equal(got, want) {
			t.Fatalf("%q: found %v, want %v", filter, got, want)
		}
	}
	for n := range model {
		names.Delete(n)
	}
	if names.root.kids.table.Load() != nil {
		t.Error("the empty index has nodes")
	}
}

// TestTreeConcurrent has readers that must always see what nobody takes away.
func TestTreeConcurrent(t *testing.T) {
	var tree Tree[int, int]
	tree.Set("a/+", -1, 7)
	tree.Set("#", -1, 7)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for g := range 3 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for range 5000 {
				if f := randomFilter(r); r.IntN(2) == 0 {
					tree.Set(f, g, g)
				} else {
					tree.Delete(f, g)
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := 0
				tree.Match("a/b", func(f string, k, v int) {
					if !slowMatch(f, "a/b") {
						t.Errorf("%q", f)
					}
					if k == -1 && v == 7 {
						seen++
					}
				})
				if seen != 2 {
					t.Errorf("%d of 2 standing entries seen", seen)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// TestLinear takes the worst topics there are: those of twice as many levels take twice the memory, not four times.
func TestLinear(t *testing.T) {
	half, whole := allocated(t, MaxLength/2), allocated(t, MaxLength)
	if whole > 3*half {
		t.Errorf("%d levels take %d bytes, %d take %d", MaxLength/2, half, MaxLength, whole)
	}
}

// allocated returns how many bytes are allocated for putting in, finding and taking out topics of so many levels.
func allocated(t *testing.T, levels int) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	slashes := strings.Repeat("/", levels)
	var tree Tree[int, int]
	var names Names[int]
	tree.Set(slashes, 1, 1)
	tree.Set(slashes[:levels-1]+"#", 1, 1)
	tree.Set("#", 1, 1)
	names.Set(slashes, 1)
	n := 0
	tree.Match(slashes, func(string, int, int) { n++ })
	names.Match("#", func(string, int) bool { n++; return true })
	if n != 3+1 {
		t.Errorf("%d found", n)
	}
	tree.Delete(slashes, 1)
	names.Delete(slashes)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestManyOnOneFilter joins and leaves with readers between, which must not cost a copy each.
func TestManyOnOneFilter(t *testing.T) {
	var tree Tree[int, int]
	const n = 100000
	for i := range n {
		tree.Set("a/b", i, i)
		tree.Match("a/c", func(string, int, int) {})
	}
	sum := 0
	tree.Match("a/b", func(_ string, k, v int) { sum++ })
	if sum != n {
		t.Errorf("%d of %d", sum, n)
	}
	for i := range n {
		tree.Delete("a/b", i)
	}
	if !tree.root.empty() {
		t.Error("nodes are left")
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{100, 100000} {
		var tree Tree[int, int]
		for i := range n {
			tree.Set(fmt.Sprintf("site/%d/room/%d/+", i%317, i), i, i)
		}
		tree.Set("site/#", 1, 1)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			found := 0
			for b.Loop() {
				tree.Match("site/5/room/5/temperature", func(string, int, int) { found++ })
			}
			if found != 2*b.N {
				b.Errorf("found %d in %d", found, b.N)
			}
		})
	}
}

func BenchmarkMatchParallel(b *testing.B) {
	var tree Tree[int, int]
	for i := range 1000 {
		tree.Set(fmt.Sprintf("site/%d/room/%d/+", i%317, i), i, i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n := 0
		for pb.Next() {
			tree.Match("site/5/room/5/temperature", func(string, int, int) { n++ })
		}
	})
}

func BenchmarkMatch10kOnOneFilter(b *testing.B) {
	var tree Tree[int, int]
	for i := range 10000 {
		tree.Set("a/b", i, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		tree.Match("a/b", func(string, int, int) { n++ })
	}
}
