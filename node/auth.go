package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/accounts"
)

// auth is who may connect to the broker and what they may do: the accounts, and the rules.
//
// A name is proven by the account's password, or by a certificate that the listener has verified. Who gives no name is
// anonymous, where the listener takes such clients. While there are no accounts at all, such a listener takes any name,
// which many devices have burnt in, and the client is anonymous all the same: nobody gets a name unproven.
type auth struct {
	book *accounts.Book
	door *access.Door
	// rules are nil where there are none, and everybody who is let in may do everything.
	rules atomic.Pointer[accounts.Rules]
	// certNeedsAccount: a certificate alone does not make a user.
	certNeedsAccount bool
	log              *slog.Logger

	mu     sync.Mutex
	said   time.Time // when the log last had a refusal
	unsaid int       // refusals since
}

var _ mqttfront.Auth = (*auth)(nil)

// How an identity was proven, as the first letter of mqttfront.Identity.Proof; behind byPassword is the hash.
const (
	byNothing     = "-"
	byClaim       = "?" // a name or a password that could not be looked at: there were no accounts
	byCertificate = "c"
	byPassword    = "p"
)

// What clients are told who may not be here.
var (
	errLogin     = &mqttfront.Refusal{Code: mqttfront.ReasonBadUserOrPassword}
	errBusy      = &mqttfront.Refusal{Code: mqttfront.ReasonServerBusy, Text: "many logins wait: try again later"}
	errAnonymous = &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "nobody is let in here without logging in: give a user name and a password"}
	errProve     = &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "there are accounts now: log in again"}
	errNoAccount = &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "there is no account of the name in the certificate"}
	errChanged   = &mqttfront.Refusal{Code: mqttfront.ReasonNotAuthorized, Text: "the account was changed or deleted: log in again"}
)

// claims reports whether a client says who it is. An empty name without a password says nothing.
func claims(l *mqttfront.Login) bool { return l.User != "" || len(l.Password) > 0 }

// Connect implements mqttfront.Auth.
func (a *auth) Connect(ctx context.Context, l mqttfront.Login) (mqttfront.Identity, error) {
	who, err := a.identify(ctx, &l)
	if err != nil {
		a.say(&l, err)
	}
	return who, err
}

func (a *auth) identify(ctx context.Context, l *mqttfront.Login) (mqttfront.Identity, error) {
	who := mqttfront.Identity{ClientID: l.ClientID, Proof: byNothing}
	t := a.book.Table()
	switch {
	case l.CertUser != "" && (l.User == "" || l.User == l.CertUser) && len(l.Password) == 0:
		who.User, who.Proof = l.CertUser, byCertificate
		return who, a.mayCertificate(t, l.CertUser)
	case l.CertUser != "" && l.User != l.CertUser:
		return who, errLogin
	case !claims(l):
		return who, a.mayAnonymous(l)
	case t.Len() == 0 && l.Anonymous && l.CertUser == "":
		who.Proof = byClaim
		return who, nil
	}
	account, err := a.door.Login(ctx, t, l.Remote.String(), l.User, l.Password)
	switch {
	case errors.Is(err, access.ErrWrong):
		return who, errLogin
	case err != nil:
		return who, errBusy
	}
	who.User, who.Proof = account.Name, byPassword+account.Hash.String()
	return who, nil
}

// mayCertificate says whether a certificate in a name is good for logging in. One whose account was deleted is not, so
// that who has the certificate can be kept out.
func (a *auth) mayCertificate(t *access.Table, name string) error {
	if _, ok := t.Get(name); !ok && (a.certNeedsAccount || t.Deleted(name)) {
		return errNoAccount
	}
	return nil
}

// mayAnonymous says whether somebody without a name is let in.
func (a *auth) mayAnonymous(l *mqttfront.Login) error {
	if !l.Anonymous {
		return errAnonymous
	}
	return nil
}

// Stays implements mqttfront.Auth. Whose password was changed has to log in again: that is how somebody is kept out.
func (a *auth) Stays(l mqttfront.Login, who mqttfront.Identity) error {
	t := a.book.Table()
	switch who.Proof[:1] {
	case byNothing:
		return a.mayAnonymous(&l)
	case byClaim:
		if t.Len() > 0 {
			return errProve
		}
		return nil
	case byCertificate:
		return a.mayCertificate(t, who.User)
	}
	if account, ok := t.Get(who.User); !ok || byPassword+account.Hash.String() != who.Proof {
		return errChanged
	}
	return nil
}

// Rights implements mqttfront.Auth. No rule binds an admin, who could change them all the same; and whose account was
// deleted has no rights left, though a session with messages for them may still be there.
func (a *auth) Rights(user, client string) mqttfront.Rights {
	t := a.book.Table()
	account, _ := t.Get(user)
	rules := a.rules.Load()
	switch {
	case t.Deleted(user):
		return nothing{}
	case rules == nil, account.Admin:
		return nil
	}
	return rules.Rights(user, account.Groups, client)
}

// nothing is the rights of who has none.
type nothing struct{}

func (nothing) CanPublish(string) bool   { return false }
func (nothing) CanReceive(string) bool   { return false }
func (nothing) CanSubscribe(string) bool { return false }

// sayEvery is how often the log has a refused login: whoever floods a node with them shall not flood its log.
const sayEvery = time.Second

// say has the log tell of a refused login.
func (a *auth) say(l *mqttfront.Login, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if now.Sub(a.said) < sayEvery {
		a.unsaid++
		return
	}
	hint := ""
	if a.book.Table().Len() == 0 {
		hint = "there are no accounts: make one with \"mozzie passwd NAME\""
	}
	a.log.Warn("refusing a login", "remote", l.Remote, "listener", l.Listener, "user", clip(l.User), "client", clip(l.ClientID),
		"reason", err, "hint", hint, "others_since_the_last_such_line", a.unsaid)
	a.said, a.unsaid = now, 0
}

// clip is what a log line can take of what a client says.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
