package mqttfront_test

import (
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func splitFields(s string) []string { return strings.Fields(s) }

// serveUntilSignal waits for SIGINT or SIGTERM; TEST_PPROF=HOST:PORT serves profiles meanwhile.
func serveUntilSignal() {
	if addr := os.Getenv("TEST_PPROF"); addr != "" {
		go http.ListenAndServe(addr, nil)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
}
