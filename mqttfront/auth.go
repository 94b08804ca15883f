package mqttfront

import "net"

// Auth decides who may connect and what they may publish and subscribe to. Its methods are called from many
// goroutines. CanPublish is asked for each message, and must be quick.
type Auth interface {
	// Connect returns who the client is, or a Refusal. It may take its time; only this client waits.
	Connect(login Login) (Identity, error)
	// CanPublish and CanSubscribe return nil, or a Refusal. Topic aliases are resolved, shared subscriptions
	// split before.
	CanPublish(who Identity, topic string) error
	CanSubscribe(who Identity, filter string) error
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
}

// AllowAll lets everybody do everything.
type AllowAll struct{}

// Connect implements Auth.
func (AllowAll) Connect(l Login) (Identity, error) {
	return Identity{User: l.User, ClientID: l.ClientID}, nil
}

// CanPublish implements Auth.
func (AllowAll) CanPublish(Identity, string) error { return nil }

// CanSubscribe implements Auth.
func (AllowAll) CanSubscribe(Identity, string) error { return nil }
