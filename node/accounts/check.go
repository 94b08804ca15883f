package accounts

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mozzie-mqtt/mozzie/mqttfront/access"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/strict"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// WriteRules replaces a file of rules in a data directory, if there is nothing wrong with them.
func WriteRules(dir Dir, name string, text []byte) error {
	if _, err := ParseRules("rules", text); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBadRules, err)
	}
	return dir.WriteFile(name, text)
}

// UnchangedRules refuses to replace rules that somebody has changed since those in force were read, or has put elsewhere.
// inForce are nil where there are none.
func UnchangedRules(path string, inForce *Rules) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		to, _ := os.Readlink(path) // for the message
		return fmt.Errorf("%w: %s is a link to %s: change that file, then \"mozzie reload\"", admin.ErrBadRules, path, to)
	}
	now, err := ReadRules(path)
	var bad strict.Problems
	switch {
	case errors.As(err, &bad):
	case err != nil:
		return err
	case inForce != nil && bytes.Equal(inForce.Text, now.Text):
		return nil
	}
	return fmt.Errorf("%w: somebody has changed %s, which is not in force yet: \"mozzie reload\" first, or take the file away", admin.ErrBadRules, path)
}

// Check says what a client may do by accounts and rules, and why. rules are nil where there are none.
func Check(t *access.Table, rules *Rules, q admin.Question) (v admin.Verdict, err error) {
	if err := checkQuestion(&q); err != nil {
		return v, fmt.Errorf("%w: %w", admin.ErrBadQuestion, err)
	}
	account, known := t.Get(q.User)
	v.Account, v.Groups = known, account.Groups
	switch {
	case t.Deleted(q.User):
		v.By = admin.ByDeleted
		return v, nil
	case account.Admin:
		v.Allowed, v.By = true, admin.ByAdmin
		return v, nil
	case rules == nil:
		v.Allowed, v.By = true, admin.ByNoRules
		return v, nil
	}
	rights := rules.Rights(q.User, account.Groups, q.Client)
	var why access.Verdict
	if q.Publish != "" {
		why = rights.Publish(q.Publish)
	} else {
		why = rights.Subscribe(q.Subscribe)
	}
	v.Allowed, v.By = why.Allowed, admin.ByNone
	if why.Rule >= 0 {
		v.By, v.Rule, v.Filter = admin.ByRule, rules.where[why.Rule], why.Filter
	}
	return v, nil
}

// checkQuestion says what is wrong with a question. Of a shared subscription, it takes off what rules do not see.
func checkQuestion(q *admin.Question) (err error) {
	if (q.Publish == "") == (q.Subscribe == "") {
		return errors.New("want a topic to publish to, or a filter to subscribe to")
	}
	if q.Publish != "" {
		return topic.ValidName(q.Publish, topic.Limits{})
	}
	if _, q.Subscribe, err = topic.ParseShare(q.Subscribe); err != nil {
		return err
	}
	return topic.ValidFilter(q.Subscribe, topic.Limits{})
}
