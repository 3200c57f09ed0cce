//go:build !race

package ginlimitprom_test

const raceEnabled = false
