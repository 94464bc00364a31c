"""What a derivation accepts, and above all what it refuses."""

import pytest
import sympy as sp

from derivations.core import Derivation, DerivationError, vanish

x, y = sp.symbols("x y", positive=True)
r = sp.Symbol("r", real=True)
k = sp.Symbol("k", integer=True)
f, g = sp.Function("f"), sp.Function("g")


@pytest.fixture
def d():
    return Derivation("trial", "A trial", "Nothing.", (), "nowhere")


class TestEqual:
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ((x + 1) ** 2, x**2 + 2 * x + 1),
            (1 / x + 1 / y, (x + y) / (x * y)),
            (sp.sin(r) ** 2, 1 - sp.cos(r) ** 2),
            (sp.Integral(r**2, (r, 0, 3)), 9),
            (sp.Limit((1 + x / y) ** y, y, sp.oo), sp.exp(x)),
            (sp.Sum(k**2, (k, 1, 4)), 30),
        ],
    )
    def test_accepts_what_holds(self, d, left, right):
        d.equal("fine", left, right)
        assert len(d.steps) == 1
        assert d.steps[0].check

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ((x + 1) ** 2, x**2 + 2 * x),
            (sp.sqrt(r**2), r),  # true for one sign only
            (x, x + sp.Rational(1, 10**40)),  # invisible in floating point
            (sp.Derivative(x**3, x), 3 * x),
            (sp.Sum(k**2, (k, 1, 4)), 29),
            (sp.Limit(1 / x, x, 0), 1),
        ],
    )
    def test_refuses_what_does_not(self, d, left, right):
        with pytest.raises(DerivationError, match=r"trial, step 1 \(wrong\)"):
            d.equal("wrong", left, right)
        assert not d.steps

    def test_checks_every_link_of_a_chain(self, d):
        d.equal("fine", x * (x + 1), x**2 + x, (x + 1) ** 2 - x - 1)
        for chain in ((x**2 + x, x * (x + 1), x), (x, x**2 + x, x * (x + 1))):
            with pytest.raises(DerivationError):
                d.equal("wrong", *chain)

    def test_checks_every_entry_of_a_matrix(self, d):
        turn = sp.Matrix([[sp.cos(r), -sp.sin(r)], [sp.sin(r), sp.cos(r)]])
        d.equal("fine", sp.MatMul(turn, turn.T, evaluate=False), sp.eye(2))
        with pytest.raises(DerivationError):
            d.equal("wrong", sp.MatMul(turn, turn.T, evaluate=False), sp.Matrix([[1, 0], [0, 1 + x]]))

    def test_refuses_an_equation_that_says_nothing(self, d):
        with pytest.raises(DerivationError, match="says nothing"):
            d.equal("empty", x + 1, x + 1)

    def test_needs_two_sides(self, d):
        with pytest.raises(TypeError):
            d.equal("half", x)


class TestDefine:
    def test_definitions_are_unfolded_in_claims_and_shown_as_given(self, d):
        d.define("a function", f(x), x**2)
        d.define("of a function", g(x), f(x) + y)
        d.define("and a symbol", y, sp.Integer(3))
        d.equal("inside a derivative", sp.Derivative(g(x), x), 2 * x)
        d.equal("at a value", g(2), 7)
        assert d.steps[0].formula == (sp.Derivative(g(x), x), 2 * x)

    def test_a_python_function_will_do(self, d):
        d.define("the trace", f(x), sp.trace, shown=x)
        d.equal("of a matrix", f(sp.ImmutableMatrix([[x, 0], [0, y]])), x + y)

    def test_definitions_do_not_run_in_circles(self, d):
        d.define("one", x, y + 1)
        d.define("two", y, x + 1)
        with pytest.raises(DerivationError, match="circle"):
            d.equal("round", x, 2)

    def test_a_wrong_definition_breaks_the_claims_that_use_it(self, d):
        d.define("wrong", f(x), x**3)
        with pytest.raises(DerivationError):
            d.equal("slope", sp.Derivative(f(x), x), 2 * x)


class TestPositive:
    @pytest.mark.parametrize("expression", [x * y, x + y**2, (x + 1) / (x * y + y), 1 / x - 1 / (x + 1)])
    def test_accepts_what_is(self, d, expression):
        d.positive("fine", expression)

    @pytest.mark.parametrize("expression", [x - y, -x, sp.S.Zero, r, r**2, x**2 - x * y + y**2, (x - y) / (x + y)])
    def test_refuses_what_is_not_or_cannot_be_told(self, d, expression):
        with pytest.raises(DerivationError, match="no proof"):
            d.positive("wrong", expression)

    def test_weakly(self, d):
        d.positive("a square", r**2, strict=False)
        with pytest.raises(DerivationError):
            d.positive("no square", r**3, strict=False)

    def test_on_a_domain(self, d):
        d.positive("beyond", x - 3, {x: 3 + y})
        with pytest.raises(DerivationError):
            d.positive("not beyond", x - 4, {x: 3 + y})

    def test_replacements_may_refer_to_later_ones(self, d):
        z = sp.Symbol("z", positive=True)
        d.positive("nested", x - y, {x: y + z, y: 1 + z})


class TestOthers:
    def test_holds_wants_true_itself(self, d):
        d.holds("fine", 1 + 1 == 2)
        for condition in (False, None, 1, x > 0):
            with pytest.raises(DerivationError):
                d.holds("wrong", condition)

    def test_differ_wants_a_witness(self, d):
        d.differ("fine", x**2, x, at={x: 2})
        with pytest.raises(DerivationError):
            d.differ("equal there", x**2, x, at={x: 1})
        with pytest.raises(DerivationError):
            d.differ("not a number", x**2, y, at={x: 1})

    def test_results_are_kept_by_name(self, d):
        d.define("let", f(x), x**2)
        d.result("SQUARE", "the last member", f(x), x**2)
        d.result("TWO", "a given value", f(sp.sqrt(2)), 2, value=sp.sqrt(2))
        assert d.results == {"SQUARE": x**2, "TWO": sp.sqrt(2)}


def test_vanish_returns_what_is_left():
    assert vanish((x + y) * (x - y) - x**2 + y**2) == 0
    assert vanish(x - y + sp.Rational(1, 10**30)) != 0
