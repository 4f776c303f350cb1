// Reads what Prometheus and a Pushgateway read of kbak, with their own parsers, and evaluates alert rules with
// the engine of Prometheus.
//
//	kbak-testrules rules FILE      alert rules
//	kbak-testrules dashboard FILE  the queries of a dashboard
//	kbak-testrules metrics FILE    metrics in the text format
//	kbak-testrules alerts FILE     evaluates alert rules over series (alerts.go)
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

func parseRules(file string) (int, error) {
	groups, wrong := rulefmt.ParseFile(file, false, model.UTF8Validation, promql, slog.Default())
	if len(wrong) > 0 {
		return 0, errors.Join(wrong...)
	}
	count := 0
	for _, group := range groups.Groups {
		count += len(group.Rules)
	}
	return count, nil
}

func dashboard(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var found struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return 0, err
	}
	count, wrong := 0, []error{}
	for _, panel := range found.Panels {
		for _, target := range panel.Targets {
			count++
			if _, err := promql.ParseExpr(target.Expr); err != nil {
				wrong = append(wrong, fmt.Errorf("panel %q: %w", panel.Title, err))
			}
		}
	}
	return count, errors.Join(wrong...)
}

func metrics(file string) (int, error) {
	text, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	return len(families), err
}

func main() {
	kinds := map[string]func(string) (int, error){
		"rules": parseRules, "dashboard": dashboard, "metrics": metrics, "alerts": alerts,
	}
	if len(os.Args) != 3 || kinds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kbak-testrules rules|dashboard|metrics|alerts FILE")
		os.Exit(2)
	}
	count, err := kinds[os.Args[1]](os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d %s\n", count, os.Args[1])
}
