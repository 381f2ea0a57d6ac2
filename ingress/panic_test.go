package ingress

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
)

// TestPanicTellsNothing has requests panic with what they were working on.
func TestPanicTellsNothing(t *testing.T) {
	for _, why := range []string{"text", "error", "index"} {
		var logged bytes.Buffer
		s := &Service{log: slog.New(slog.NewJSONHandler(&logged, nil))}
		e := gin.New()
		e.Use(s.recover)
		e.POST("/", func(c *gin.Context) {
			body, _ := io.ReadAll(c.Request.Body)
			switch why {
			case "text":
				panic(string(body) + c.GetHeader("Authorization"))
			case "error":
				panic(fmt.Errorf("at %q", body))
			}
			_ = body[c.Request.ContentLength]
		})
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("s3cret"))
		r.Header.Set("Authorization", "Bearer s3cret")
		e.ServeHTTP(w, r)
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		require.NotContains(t, w.Body.String(), "s3cret")
		require.NotContains(t, logged.String(), "s3cret", why)
		require.Contains(t, logged.String(), "panic_test.go", "the stack")
		require.Equal(t, why == "index", strings.Contains(logged.String(), "index out of range"))
	}
}
