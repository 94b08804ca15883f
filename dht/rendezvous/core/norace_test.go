//go:build !race

package core_test

// manySeeds is how many seeds are simulated unless told otherwise.
const manySeeds = 200
