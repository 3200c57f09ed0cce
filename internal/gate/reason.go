package gate

// reason is an error that says in one word what it is, for backend.ErrorKind.
type reason struct{ kind, text string }

// NewReason returns an error that says why a store could not decide: in one word, fit for a metric's label, and as a
// text.
func NewReason(kind, text string) error { return &reason{kind, text} }

func (r *reason) Error() string { return r.text }

// Kind is what backend.ErrorKind returns.
func (r *reason) Kind() string { return r.kind }
