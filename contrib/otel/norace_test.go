//go:build !race

package ginlimitotel_test

const raceEnabled = false
