// Command program is what the tests of proctest run: a service that is ready, counts, and ends when it is asked to.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ops, err := os.ReadFile(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# TYPE asked counter\nasked{a=\"1\"} 2\nasked{a=\"2\"} 3\nasked_never 5\n")
	})
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	fmt.Println("begun", os.Getenv("PROCTEST"), os.Args[1])
	go func() {
		fmt.Println(http.ListenAndServe(string(ops), nil))
		os.Exit(3)
	}()
	<-end
}
