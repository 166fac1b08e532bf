package main

import (
	"fmt"
	"maps"
	"slices"
)

// attempts is how often a measurement is made at most, where the machine is too noisy.
const attempts = 3

// samples are measured values by the name of what was measured.
type samples map[string][]float64

func (s samples) add(name string, value float64) { s[name] = append(s[name], value) }

func (s samples) median(name string) float64 { return quantile(s[name], 0.5) }

// steady measures until the spread of the reference's own values is within the bound. It prints all spreads.
func steady(reference string, spread func([]float64) float64, bound float64, unit string, measure func() (samples, error)) (samples, error) {
	for range attempts {
		values, err := measure()
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			v := values[name]
			fmt.Printf("%-24s median %.4g %s, quarters %.4g to %.4g, all %.4g to %.4g\n",
				name, quantile(v, 0.5), unit, quantile(v, 0.25), quantile(v, 0.75), slices.Min(v), slices.Max(v))
		}
		noise := spread(values[reference])
		fmt.Printf("spread of the reference (%s): %.2f (bound %.2f)\n", reference, noise, bound)
		if noise <= bound {
			return values, nil
		}
		fmt.Println("the machine was too noisy")
	}
	return nil, fmt.Errorf("the spread of %s exceeds the bound in %d attempts: the machine is too noisy for a figure", reference, attempts)
}

// relativeSpread is how far apart the quarters lie, in parts of the median.
func relativeSpread(values []float64) float64 { return quarters(values) / quantile(values, 0.5) }

// quarters is the distance between the quarters.
func quarters(values []float64) float64 { return quantile(values, 0.75) - quantile(values, 0.25) }

// quantile interpolates between the two nearest values.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}
