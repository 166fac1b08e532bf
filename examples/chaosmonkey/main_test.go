package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestTheSameSeedMakesTheSameChoices(t *testing.T) {
	choices := func(seed uint64) (all string) {
		random := rand.New(rand.NewPCG(seed, 0))
		for range 20 {
			isDue, name, which := choose(random, []string{"kill", "cut", "flip"})
			all += fmt.Sprint(isDue, name, which, " ")
		}
		return all
	}
	first := choices(1)
	if again := choices(1); again != first {
		t.Error("the same seed makes other choices")
	}
	if choices(2) == first {
		t.Error("another seed makes the same choices")
	}
}
