// Command bento is Bento with the components that the processor's benchmark needs, and no others. It is a module of its
// own, outside the workspace: none of its dependencies are Catchment's.
package main

import (
	"context"

	_ "github.com/warpstreamlabs/bento/public/components/io"
	_ "github.com/warpstreamlabs/bento/public/components/kafka"
	_ "github.com/warpstreamlabs/bento/public/components/pure"
	_ "github.com/warpstreamlabs/bento/public/components/sql/base"
	"github.com/warpstreamlabs/bento/public/service"

	_ "github.com/lib/pq"
)

func main() { service.RunCLI(context.Background()) }
