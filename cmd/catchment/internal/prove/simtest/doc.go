// Package simtest runs all of Catchment in one process, in virtual time. A seed comes in, which says what providers send and what
// fails when, and out goes what of the promises was broken: the services are those that are shipped, on a network, a Kafka
// and a Postgres in memory. It must never wait for real time, nor judge by what the services say of themselves.
package simtest
