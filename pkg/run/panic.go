package run

import (
	"errors"
	"fmt"
	"runtime"
)

// Panicked is what a log may tell of a panic: all of what Go's runtime says, of anything else its type alone, since whoever
// panics may say what it was working on, which is a body or a secret. The stack says where it was.
func Panicked(p any) string {
	if err, ok := p.(error); ok {
		var own runtime.Error
		if errors.As(err, &own) {
			return own.Error()
		}
	}
	return fmt.Sprintf("%T", p)
}
