package expr

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// maxPlain bounds the parts of a plain expression.
const maxPlain = 64

// cheap are the functions whose work is at most to look once at their operands, and which make nothing longer than those.
var cheap = []string{
	operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
	operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional, operators.In,
	operators.Index, operators.OptIndex, operators.OptSelect, "orValue",
}

// isPlain says whether an expression is so small and simple that it cannot come near the cost limit. Counting the cost
// takes about as long as evaluating it.
func isPlain(tree *ast.AST) bool {
	parts := ast.MatchDescendants(ast.NavigateAST(tree), func(ast.NavigableExpr) bool { return true })
	return len(parts) <= maxPlain && !slices.ContainsFunc(parts, func(e ast.NavigableExpr) bool {
		switch e.Kind() {
		case ast.CallKind:
			return !slices.Contains(cheap, e.AsCall().FunctionName())
		case ast.IdentKind, ast.LiteralKind, ast.SelectKind, ast.ListKind, ast.MapKind:
			return false
		default:
			return true
		}
	})
}
