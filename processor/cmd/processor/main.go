// Command processor runs the processor service. A configuration file comes in, and the service and its operations
// endpoint run until a signal. It decides nothing itself.
package main

import (
	"os"

	"github.com/catchment-dev/catchment/processor"
)

func main() { os.Exit(processor.Main(os.Args[1:], os.Stderr)) }
