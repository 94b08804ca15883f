// The brokers that "make bench" measures beside Mozzie and mosquitto, in the versions that it measures:
//
//	go -C e2e/bench/peers build -o FOLDER github.com/nats-io/nats-server/v2
//
// A module of its own, so that what they are built from is no dependency of mozzie.
module github.com/mozzie-mqtt/mozzie/e2e/bench/peers

go 1.26.0

tool (
	github.com/mochi-mqtt/server/v2/cmd
	github.com/nats-io/nats-server/v2
)

require (
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/gorilla/websocket v1.5.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/mochi-mqtt/server/v2 v2.7.9 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nats-server/v2 v2.15.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/rs/xid v1.4.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
