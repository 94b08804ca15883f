//go:build !race

package rendezvous

const poison = false
