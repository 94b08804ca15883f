package mqttfront

import (
	"context"
	"net"
)

// Auth decides who may connect and what they may do. Its methods are called from many goroutines. What they answer may
// change at any time: Broker.Recheck is called then.
type Auth interface {
	// Connect returns who the client is, or a Refusal. It may take its time, until ctx ends; only this client waits.
	Connect(ctx context.Context, login Login) (Identity, error)
	// Stays returns nil while a client that Connect has let in may stay, else a Refusal. login has no password.
	Stays(login Login, who Identity) error
	// Rights returns what a client of that name may do, connected or not; nil: everything. It is asked with locks held,
	// and must not wait.
	Rights(user, clientID string) Rights
}

// Rights are what one client may do. They do not change, and are asked for each message of clients that have any: they
// must be quick and not allocate. Two of them are compared with ==, so that they must be of a type that can be.
type Rights interface {
	// CanPublish is asked about a topic of which aliases are resolved, CanReceive about one that a subscription of the
	// client matches.
	CanPublish(topic string) bool
	CanReceive(topic string) bool
	// CanSubscribe reports whether a filter, of which $share/NAME/ is taken off, matches anything that the client may
	// receive.
	CanSubscribe(filter string) bool
}

// Login is what a client says of itself.
type Login struct {
	ClientID string
	User     string
	Password []byte
	HasUser  bool
	Remote   net.Addr
	Listener string // its URL, as given to Listen
	// Anonymous says that the listener takes clients that do not say who they are.
	Anonymous bool
	// CertUser is the user that the client's certificate names; "" without one that the listener has verified.
	CertUser string
}

// Identity is who a client turned out to be.
type Identity struct {
	User     string // "" for anonymous clients
	ClientID string
	// Proof is what Auth remembers of how that was shown, for Stays.
	Proof string
}

// AllowAll lets everybody do everything.
type AllowAll struct{}

// Connect implements Auth.
func (AllowAll) Connect(_ context.Context, l Login) (Identity, error) {
	return Identity{User: l.User, ClientID: l.ClientID}, nil
}

// Stays implements Auth.
func (AllowAll) Stays(Login, Identity) error { return nil }

// Rights implements Auth.
func (AllowAll) Rights(string, string) Rights { return nil }
