package main

import (
	"strings"

	"github.com/ginlimit/ginlimit/backend"
)

// limits is a flag that may be given several times. It takes the language of [backend.ParseLimit].
type limits []backend.Limit

// String implements flag.Value.
func (l *limits) String() string {
	if l == nil {
		return ""
	}
	words := make([]string, len(*l))
	for i, limit := range *l {
		words[i] = limit.String()
	}
	return strings.Join(words, ", ")
}

// Set implements flag.Value.
func (l *limits) Set(text string) error {
	limit, err := backend.ParseLimit(text)
	if err != nil {
		return err
	}
	*l = append(*l, limit)
	return nil
}
