//go:build !failpoints

package failpoint

import (
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Hit passes a point.
func Hit(Point) {}

// Watch lets a COMMIT be seen on the connections that cfg makes.
func Watch(*pgconn.Config) {}

// Arm says which point is passed when the next COMMIT on the connection is sent.
func Arm(net.Conn, Point) {}
