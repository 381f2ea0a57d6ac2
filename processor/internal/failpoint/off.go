//go:build !failpoints

package failpoint

import (
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Hit passes a point.
func Hit(Point) {}

// Watch lets CommitSent be seen on the connections that cfg makes.
func Watch(*pgconn.Config) {}

// Arm says that the next COMMIT on the connection is a batch's.
func Arm(net.Conn) {}
