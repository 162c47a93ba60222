/* tok/jinja_int.h - what the files of the template engine share.
 *
 * source -> tokens (jinja_lex) -> tree (jinja_parse, jinja_expr) -> variables bound to slots (jinja_scope),
 * all in the template's own arena; a render (jinja_exec, jinja_eval) walks the tree with values that live in
 * the render's arena and are dropped with it.  Values never change once built, except namespaces, cyclers,
 * joiners, iterators and loops: that is what the immutable sandbox of the reference allows.
 *
 * Every function that can fail returns false (or NULL) after jinja_fail has filled the error. */
#ifndef QUIRE_TOK_JINJA_INT_H
#define QUIRE_TOK_JINJA_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "tok/jinja.h"

struct jrender;

/* ---- values ---- */

enum jtype {
    JT_MISSING,    /* no value at all: an unset slot, an argument not given */
    JT_UNDEFINED,  /* Jinja's Undefined */
    JT_NONE,
    JT_BOOL,
    JT_INT,
    JT_FLOAT,
    JT_STR,
    JT_LIST,
    JT_TUPLE,
    JT_DICT,
    JT_RANGE,
    JT_VIEW,       /* dict.keys(), values(), items() */
    JT_ITER,       /* generators and iterators: used up as they are walked */
    JT_NAMESPACE,
    JT_MACRO,
    JT_FUNC,       /* a global function */
    JT_METHOD,     /* a method with its object */
    JT_LOOP,
    JT_CYCLER,
    JT_JOINER,
};

struct jval {
    enum jtype t;
    union {
        bool b;
        int64_t i;
        double f;
        struct jstr *s;
        struct jlist *list;        /* JT_LIST and JT_TUPLE */
        struct jdict *dict;        /* JT_DICT and JT_NAMESPACE */
        struct jrange *range;
        struct jview *view;
        struct jiter *iter;
        struct jundef *undef;
        struct jmacro *macro;
        const struct jfunc_spec *func;
        struct jmethod *method;
        struct jloop *loop;
        struct jcycler *cycler;
        struct jjoiner *joiner;
    } u;
};

/* Text: valid UTF-8, not always NUL-terminated.  Slices share bytes with their source.  room > 0: the bytes
 * end a block that this string's owner may extend in place, so that s = s ~ x in a loop stays linear. */
struct jstr {
    const char *s;
    size_t len;
    size_t n_chars;          /* code points; SIZE_MAX = not counted yet */
    bool markup;             /* Markup: +, ~ and format escape what joins it */
    struct jblock *block;
};

struct jblock { char *data; size_t used, cap; };

struct jlist { struct jval *items; size_t n, cap; bool group; /* groupby's (grouper, list) */ };

struct jpair { struct jval key, value; uint64_t hash; };
struct jdict {
    struct jpair *items;     /* insertion order */
    size_t n, cap;
    uint32_t *index;         /* open addressing, item number + 1; NULL while small */
    size_t index_cap;
};

struct jrange { int64_t start, stop, step, n; };
enum jview_kind { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS };
struct jview { struct jdict *dict; enum jview_kind kind; };

/* Undefined: which message its use gives. */
struct jundef {
    const char *hint;        /* NULL: made from name and obj */
    struct jval name;
    struct jval obj;         /* JT_MISSING: a variable, else the object that lacks name */
};

struct jcycler { struct jval *items; size_t n, pos; };
struct jjoiner { struct jval sep; bool used; };

struct jargs {
    struct jval *pos;
    size_t n_pos;
    struct jkw { const char *name; size_t len; struct jval v; } *kw;
    size_t n_kw;
};

/* params of a builtin: names separated by blanks, required ones end in '!'; NULL: the function looks at
 * the arguments itself.  argv has one value for each name, JT_MISSING when not given. */
enum { JINJA_MAX_PARAMS = 8 };
typedef bool jfunc_fn(struct jrender *r, struct jval self, struct jval *argv, struct jargs *args, struct jval *out);
struct jfunc_spec { const char *name; const char *params; jfunc_fn *fn; };

struct jmethod { struct jval self; const struct jfunc_spec *spec; };

enum jiter_kind {
    JITER_ITEMS,     /* list, tuple: array at src */
    JITER_STR,
    JITER_DICT,      /* dict or view */
    JITER_RANGE,
    JITER_REVERSED,  /* list, tuple, range, dict, backwards */
    JITER_MAP,       /* map() */
    JITER_SELECT,    /* select, reject, selectattr, rejectattr */
    JITER_LAZY,      /* runs fn on the first step, then walks its list */
    JITER_LOOPTEST,  /* the if of a for loop */
    JITER_EMPTY,
};
struct jiter {
    enum jiter_kind kind;
    const char *type_name;       /* as Python names it: generator, list_reverseiterator ... */
    struct jval src;
    size_t i, byte;
    struct jiter *inner;
    bool started, finished;
    /* map and select */
    struct jargs args;
    bool negate, with_attr;
    /* lazy */
    jfunc_fn *fn;
    struct jval argv[JINJA_MAX_PARAMS];
    /* loop test */
    const struct jnode *node;
    struct jenv *env;
};

struct jloop {
    struct jval iterable;
    struct jiter *it;
    int64_t index0, depth0;
    int64_t length;              /* -1: not known */
    struct jval after, current, before;
    struct jval changed;         /* last arguments of changed(); JT_MISSING at first */
    const struct jnode *node;    /* recursive loops */
    struct jenv *env;
};

struct jmacro {
    const struct jnode *node;
    struct jenv *env;            /* where it was defined */
};

/* ---- syntax tree ---- */

enum jkind {
    /* expressions */
    JN_CONST, JN_NAME, JN_NSREF, JN_TUPLE, JN_LIST, JN_DICT, JN_COND, JN_BIN, JN_AND, JN_OR, JN_NOT, JN_NEG, JN_POS,
    JN_COMPARE, JN_OPERAND, JN_CONCAT, JN_ATTR, JN_ITEM, JN_SLICE, JN_CALL, JN_FILTER, JN_TEST, JN_KEYWORD,
    /* statements */
    JN_OUTPUT, JN_FOR, JN_IF, JN_SET, JN_SETBLOCK, JN_MACRO, JN_CALLBLOCK, JN_FILTERBLOCK, JN_WITH, JN_SCOPE,
    JN_BREAK, JN_CONTINUE,
};

enum jop {
    JOP_ADD, JOP_SUB, JOP_MUL, JOP_DIV, JOP_FLOORDIV, JOP_MOD, JOP_POW,
    JOP_EQ, JOP_NE, JOP_LT, JOP_LE, JOP_GT, JOP_GE, JOP_IN, JOP_NOTIN,
};

enum jctx { JCTX_LOAD, JCTX_STORE, JCTX_PARAM };

struct jnodes { struct jnode **items; size_t n, cap; };

/* One node of any kind.  What the fields hold:
 *   NAME name, ctx, var; NSREF name.attr; COND a=test b=then c=else; BIN/AND/OR a b; COMPARE a, list of OPERAND(op, a)
 *   ATTR a.name; ITEM a[b]; SLICE a:b:c; CALL/FILTER/TEST a, name, list=args, kw=KEYWORDs, b=*args, c=**kwargs
 *   DICT list = key, value, key, value ...
 *   OUTPUT list; FOR a=target b=iter c=test d=test's target, body, orelse; IF a, body, list=elifs, orelse
 *   SET a=target b; SETBLOCK a=target b=filter body; MACRO name list=params kw=defaults body; CALLBLOCK the same, a=call
 *   FILTERBLOCK a=filter body; WITH list=targets kw=values body; SCOPE body */
struct jnode {
    enum jkind kind;
    int op;                      /* jop or jctx */
    int line;
    int height;                  /* of this subtree */
    bool flag;                   /* FOR: recursive */
    bool wants_loop;             /* FOR: the body reads loop */
    struct jnode *a, *b, *c, *d;
    struct jnodes list, kw, body, orelse;
    const char *name, *attr;
    size_t name_len, attr_len;
    struct jval value;           /* CONST, and names as strings */
    const struct jfunc_spec *spec; /* FILTER, TEST: NULL = unknown, an error when reached */
    /* filled by jinja_scope */
    const struct jvar *var;      /* NAME, NSREF, MACRO's own name */
    struct jframe *frame;        /* frame of the body; a macro's, a loop's ... */
    struct jframe *else_frame, *test_frame;
    const struct jvar *loop_var, *caller_var, *kwargs_var, *varargs_var;
};

/* A variable: a slot of a function's activation.  Names bind to slots before any render, with the rules of
 * the reference's compiler (which scopes statically). */
struct jvar {
    const char *name;
    size_t len;
    struct jfn *fn;
    int level;
    size_t slot;
    struct jvar *next;           /* of the same function */
};

/* What entering a frame does to its variables, in order. */
enum jload_kind { JLOAD_PARAM, JLOAD_RESOLVE, JLOAD_ALIAS, JLOAD_UNDEFINED };
struct jload { const struct jvar *var; enum jload_kind kind; const struct jvar *from; struct jval name; };
struct jframe { struct jload *loads; size_t n; struct jfn *fn; };

/* A unit with its own activation: the template, a macro, a recursive loop, a loop's test. */
struct jfn { int depth; size_t n_slots; struct jvar *vars; };

struct jenv { struct jenv *parent; const struct jfn *fn; struct jval slots[]; };

struct jinja {
    struct arena *arena;
    char *source;                /* newlines normalised, in the arena */
    size_t len;
    struct jnodes body;
    struct jframe *frame;
};

/* ---- lexer ---- */

enum jtok {
    JTOK_EOF, JTOK_DATA, JTOK_BLOCK_BEGIN, JTOK_BLOCK_END, JTOK_VAR_BEGIN, JTOK_VAR_END,
    JTOK_NAME, JTOK_STRING, JTOK_INT, JTOK_FLOAT,
    JTOK_ADD, JTOK_SUB, JTOK_DIV, JTOK_FLOORDIV, JTOK_MUL, JTOK_MOD, JTOK_POW, JTOK_TILDE, JTOK_LBRACKET, JTOK_RBRACKET,
    JTOK_LPAREN, JTOK_RPAREN, JTOK_LBRACE, JTOK_RBRACE, JTOK_EQ, JTOK_NE, JTOK_GT, JTOK_GE, JTOK_LT, JTOK_LE,
    JTOK_ASSIGN, JTOK_DOT, JTOK_COLON, JTOK_PIPE, JTOK_COMMA, JTOK_SEMICOLON,
};

struct jtoken { enum jtok type; int line; const char *s; size_t len; int64_t i; double f; };

/* Compilation in progress. */
struct jcomp {
    struct arena *arena;
    struct err *e;
    const char *source;
    size_t len;
    struct jtoken *toks;
    size_t n_toks, cap_toks;
    size_t pos;                  /* parser */
    int depth;
    int n_loops;                 /* nested loops of this function: where break may stand */
};

enum { JINJA_PARSE_DEPTH = 200, JINJA_TREE_HEIGHT = 600 };

/* Reports at a line.  Returns false. */
bool jinja_comp_fail(struct jcomp *c, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void *jinja_comp_alloc(struct jcomp *c, size_t n, size_t elem_bytes);
bool jinja_lex(struct jcomp *c);
const char *jinja_tok_name(enum jtok t);

/* ---- parser ---- */

bool jinja_parse(struct jcomp *c, struct jnodes *body);
struct jnode *jinja_node(struct jcomp *c, enum jkind kind, int line);
bool jinja_nodes_push(struct jcomp *c, struct jnodes *v, struct jnode *n);
const struct jtoken *jinja_cur(const struct jcomp *c);
const struct jtoken *jinja_look(const struct jcomp *c);
const struct jtoken *jinja_next(struct jcomp *c);
bool jinja_is_name(const struct jtoken *t, const char *name);
bool jinja_skip_name(struct jcomp *c, const char *name);
bool jinja_skip_tok(struct jcomp *c, enum jtok type);
bool jinja_expect(struct jcomp *c, enum jtok type);
struct jnode *jinja_parse_expr(struct jcomp *c, bool with_cond);
enum { JINJA_TUPLE_SIMPLE = 1, JINJA_TUPLE_NO_COND = 2, JINJA_TUPLE_PARENS = 4 };
/* end_name: a name that also ends the tuple, or NULL. */
struct jnode *jinja_parse_tuple(struct jcomp *c, unsigned flags, const char *end_name);
struct jnode *jinja_parse_filter(struct jcomp *c, struct jnode *node, bool start_inline);
bool jinja_scope(struct jcomp *c, struct jinja *j);

/* ---- rendering ---- */

struct jrender {
    struct arena *arena;
    struct err *e;
    struct jinja_limits lim;
    uint64_t steps;
    int depth;                   /* macro calls and recursive loops */
    int levels;                  /* nested evaluations: bounds the C stack */
    int line;                    /* of the node at work */
    struct buf out;              /* output and, behind it, the captures in progress */
    struct jdict *globals;
    int64_t now_unix;
    uint64_t hash_seed;
    bool failed;
};

/* Errors.  jinja_fail puts the line in front; both return false. */
bool jinja_fail(struct jrender *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool jinja_fail_code(struct jrender *r, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool jinja_fail_undef(struct jrender *r, struct jval v);
/* Counts n steps; false past the limit. */
bool jinja_charge(struct jrender *r, uint64_t n);
void *jinja_alloc(struct jrender *r, size_t n, size_t elem_bytes);
bool jinja_enter(struct jrender *r);  /* one level down; on true pair with jinja_leave */
void jinja_leave(struct jrender *r);

/* Values */
static inline struct jval jv_none(void) { return (struct jval){.t = JT_NONE}; }
static inline struct jval jv_missing(void) { return (struct jval){.t = JT_MISSING}; }
static inline struct jval jv_bool(bool b) { return (struct jval){.t = JT_BOOL, .u.b = b}; }
static inline struct jval jv_int(int64_t i) { return (struct jval){.t = JT_INT, .u.i = i}; }
static inline struct jval jv_float(double f) { return (struct jval){.t = JT_FLOAT, .u.f = f}; }
static inline bool jv_is_intlike(struct jval v) { return v.t == JT_INT || v.t == JT_BOOL; }
static inline int64_t jv_as_int(struct jval v) { return v.t == JT_BOOL ? v.u.b : v.u.i; }
static inline bool jv_is_num(struct jval v) { return jv_is_intlike(v) || v.t == JT_FLOAT; }
static inline double jv_as_float(struct jval v) { return v.t == JT_FLOAT ? v.u.f : (double)jv_as_int(v); }

bool jinja_str_new(struct jrender *r, const char *s, size_t len, struct jval *out);     /* copies */
bool jinja_str_borrow(struct jrender *r, const char *s, size_t len, struct jval *out);  /* s outlives the render */
bool jinja_str_z(struct jrender *r, const char *z, struct jval *out);                   /* a literal */
bool jinja_str_concat(struct jrender *r, const struct jstr *a, const struct jstr *b, struct jval *out);
bool jinja_str_markup(struct jrender *r, struct jval s, struct jval *out);
bool jinja_str_take(struct jrender *r, struct buf *b, struct jval *out);  /* copies and frees b; reports b->failed */
void jinja_buf_init(struct jrender *r, struct buf *b);                    /* limited by max_memory */
size_t jinja_str_chars(struct jstr *s);
size_t jinja_str_offset(struct jstr *s, size_t index);  /* byte offset of a code point, index <= n_chars */
bool jinja_str_is(struct jval v, const char *z);
bool jinja_is_space(uint32_t cp);

bool jinja_list_new(struct jrender *r, enum jtype t, size_t cap, struct jval *out);
bool jinja_list_push(struct jrender *r, struct jlist *l, struct jval v);
bool jinja_tuple2(struct jrender *r, struct jval a, struct jval b, struct jval *out);
bool jinja_dict_new(struct jrender *r, struct jval *out);
bool jinja_dict_put(struct jrender *r, struct jdict *d, struct jval k, struct jval v);
bool jinja_dict_get(struct jrender *r, struct jdict *d, struct jval k, struct jval *out, bool *found);
/* By text, no errors: *found false when absent. */
bool jinja_dict_find(struct jrender *r, const struct jdict *d, const char *s, size_t len, struct jval *out);
bool jinja_from_json(struct jrender *r, const json_t *j, struct jval *out);

bool jinja_undef_name(struct jrender *r, struct jval name, struct jval *out);
bool jinja_undef_obj(struct jrender *r, struct jval obj, struct jval name, struct jval *out);
bool jinja_undef_hint(struct jrender *r, const char *hint, struct jval *out);

const char *jinja_type_name(struct jval v);   /* "str", "list" ... */
bool jinja_truth(struct jval v);
bool jinja_identical(struct jval a, struct jval b);
bool jinja_eq(struct jrender *r, struct jval a, struct jval b, bool *out);
bool jinja_compare(struct jrender *r, int op, struct jval a, struct jval b, bool *out);  /* all of JOP_EQ.. */
bool jinja_contains(struct jrender *r, struct jval seq, struct jval v, bool *out);
bool jinja_hash(struct jrender *r, struct jval v, uint64_t *out);  /* fails on unhashable */
bool jinja_len(struct jrender *r, struct jval v, int64_t *out);
bool jinja_has_len(struct jval v);
bool jinja_sort(struct jrender *r, struct jval *items, struct jval *keys, size_t n, bool reverse);

/* Numbers */
bool jinja_binop(struct jrender *r, int op, struct jval a, struct jval b, struct jval *out);
bool jinja_unary(struct jrender *r, bool negative, struct jval a, struct jval *out);
bool jinja_round_float(double v, int64_t digits, double *out);

/* Printing */
void jinja_fmt_float(double f, char out[40]);                              /* repr(float) */
bool jinja_print(struct jrender *r, struct jval v, struct buf *b);         /* str(v) */
bool jinja_repr(struct jrender *r, struct jval v, struct buf *b);
bool jinja_to_str(struct jrender *r, struct jval v, struct jval *out);     /* soft_str: Markup stays */
bool jinja_escape(struct jrender *r, struct jval v, struct jval *out);     /* html escape -> Markup */
bool jinja_tojson(struct jrender *r, struct jval v, struct jval *argv, struct jval *out);
bool jinja_percent(struct jrender *r, struct jval fmt, struct jval arg, struct jval *out);   /* fmt % arg */
bool jinja_format(struct jrender *r, struct jval fmt, const struct jargs *args, struct jval *out);  /* str.format */

/* Iteration: 1 an item, 0 the end, -1 failed. */
bool jinja_iter(struct jrender *r, struct jval v, struct jiter **out);
bool jinja_iterable(struct jval v);
int jinja_iter_next(struct jrender *r, struct jiter *it, struct jval *out);
bool jinja_iter_new(struct jrender *r, enum jiter_kind kind, struct jiter **out);
bool jinja_to_list(struct jrender *r, struct jval v, struct jval *out);    /* list(v): always a fresh list */
bool jinja_reversed(struct jrender *r, struct jval v, struct jval *out, bool *ok);
int jinja_loop_next(struct jrender *r, struct jloop *l, struct jval *out);
bool jinja_loop_length(struct jrender *r, struct jloop *l, int64_t *out);
int jinja_loop_peek(struct jrender *r, struct jloop *l, struct jval *out);

/* Access */
bool jinja_getattr(struct jrender *r, struct jval o, struct jval name, struct jval *out);
bool jinja_getitem(struct jrender *r, struct jval o, struct jval key, struct jval *out);
bool jinja_slice(struct jrender *r, struct jval o, struct jval start, struct jval stop, struct jval step, struct jval *out);
/* The attribute alone (no item fallback): *found false when there is none. */
bool jinja_attr(struct jrender *r, struct jval o, struct jval name, struct jval *out, bool *found);

/* Calls */
bool jinja_call(struct jrender *r, struct jval f, struct jargs *args, struct jval *out);
bool jinja_call_spec(struct jrender *r, const struct jfunc_spec *spec, struct jval self, struct jargs *args, struct jval *out);
bool jinja_eval(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out);
/* A call with the caller macro of a call block; a filter (chain) applied to self. */
bool jinja_eval_call(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *caller, struct jval *out);
bool jinja_eval_filter(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *self, struct jval *out);
bool jinja_assign(struct jrender *r, struct jenv *env, const struct jnode *target, struct jval v);
bool jinja_call_macro(struct jrender *r, struct jmacro *m, struct jargs *args, struct jval *out);
bool jinja_call_loop(struct jrender *r, struct jloop *l, struct jval iterable, struct jval *out);
bool jinja_env_new(struct jrender *r, struct jenv *parent, const struct jfn *fn, struct jenv **out);
bool jinja_frame_enter(struct jrender *r, struct jenv *env, const struct jframe *f);
struct jval *jinja_slot(struct jenv *env, const struct jvar *var);
struct jkw *jinja_kw(struct jargs *a, const char *name);
int jinja_looptest_next(struct jrender *r, struct jiter *it, struct jval *out);

/* Tables; NULL when there is no such name. */
const struct jfunc_spec *jinja_filter_find(const char *name, size_t len);
const struct jfunc_spec *jinja_filter_seq_find(const char *name, size_t len);
const struct jfunc_spec *jinja_test_find(const char *name, size_t len);
const struct jfunc_spec *jinja_global_find(const char *name, size_t len);
const struct jfunc_spec *jinja_str_method(const char *name, size_t len);
const struct jfunc_spec *jinja_obj_method(enum jtype t, const char *name, size_t len);
const struct jfunc_spec *jinja_spec_find(const struct jfunc_spec *table, const char *name, size_t len);

/* Arguments of builtins with their defaults (JT_MISSING takes dflt; wrong types fail). */
bool jinja_arg_int(struct jrender *r, struct jval v, int64_t dflt, int64_t *out, const char *what);
bool jinja_arg_str(struct jrender *r, struct jval v, const char *dflt, struct jval *out, const char *what);
static inline bool jinja_arg_bool(struct jval v, bool dflt) { return v.t == JT_MISSING ? dflt : jinja_truth(v); }

/* Attribute paths of filters: "a.b.0" */
bool jinja_path_get(struct jrender *r, struct jval item, struct jval path, struct jval dflt, struct jval *out);

/* Pieces that methods and filters share. */
bool jinja_str_replace(struct jrender *r, struct jval s, struct jval old, struct jval by, int64_t count, struct jval *out);
bool jinja_str_strip(struct jrender *r, struct jval s, struct jval chars, int sides, struct jval *out); /* 1 left 2 right */
bool jinja_str_case(struct jrender *r, struct jval s, int mode, struct jval *out);  /* 'u' 'l' 'c'apitalize 't'itle 's'wap */
bool jinja_str_lines(struct jrender *r, struct jstr *s, bool keep, struct jval *out);
bool jinja_str_pad(struct jrender *r, struct jstr *s, int64_t left, int64_t right, const char *fill, size_t fill_len,
                   struct jval *out);
bool jinja_str_islower(const struct jstr *s);
bool jinja_str_isupper(const struct jstr *s);
size_t jinja_find(const char *s, size_t n, const char *t, size_t m);     /* SIZE_MAX: none */
bool jinja_parse_int(const char *s, size_t n, int base, int64_t *out, bool *overflow);  /* int(str, base) */
bool jinja_parse_float(const char *s, size_t n, double *out);            /* float(str) */

/* Does the template loop over a message's content (chat.h)? */
bool jinja_loops_content(const struct jinja *j);

#endif
