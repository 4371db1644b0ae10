;;; prelude.scm --- the few list helpers that every policy may want.
;;;
;;; Pure functions on lists. `unique` and `without` are meant for short ones (regions,
;;; siblings, probes); `sort-by` and `sorted-union` (the texts of all the lists, each once,
;;; in alphabetical order) hold up with thousands of lines.

(require-builtin repomind/host)
(provide every any first-that index-of sort-by sort-on sort-within sorted-union without unique best-by)

;; From the host:

;;@doc (sorted-union lists)
;; The texts of all the lists, each once, in alphabetical order.
;; > (sorted-union '(("b" "a") ("a" "c")))
;; = ("a" "b" "c")

;;@doc
;; #t when (test x) holds for each x of the list; #t for the empty list.
;; > (every even? '(2 4))
;; = #true
;; > (every even? '())
;; = #true
(define (every test items)
  (cond [(null? items) #t]
        [(test (car items)) (every test (cdr items))]
        [else #f]))

;;@doc
;; #t when (test x) holds for at least one x of the list.
;; > (any even? '(1 2))
;; = #true
(define (any test items)
  (cond [(null? items) #f]
        [(test (car items)) #t]
        [else (any test (cdr items))]))

;;@doc
;; The first x of the list for which (test x) holds, or #f.
;; > (first-that even? '(1 2 4))
;; = 2
;; > (first-that even? '(1))
;; = #false
(define (first-that test items)
  (cond [(null? items) #f]
        [(test (car items)) (car items)]
        [else (first-that test (cdr items))]))

;;@doc
;; Where x stands in the list, from 0, or #f.
;; > (index-of 'b '(a b))
;; = 1
(define (index-of x items)
  (let loop ([rest items] [at 0])
    (cond [(null? rest) #f]
          [(equal? x (car rest)) at]
          [else (loop (cdr rest) (+ at 1))])))

;;@doc
;; The list in the order of (before? a b); what is equal keeps its order.
;; > (sort-by > '(1 3 2))
;; = (3 2 1)
(define (sort-by before? items)
  (define (merge a b merged)
    (cond [(null? a) (append (reverse merged) b)]
          [(null? b) (append (reverse merged) a)]
          [(before? (car b) (car a)) (merge a (cdr b) (cons (car b) merged))]
          [else (merge (cdr a) b (cons (car a) merged))]))
  (define half (quotient (length items) 2))
  (if (= half 0)
      items
      (merge (sort-by before? (take items half)) (sort-by before? (list-tail items half)) '())))

;;@doc
;; The list by (key x), a list of numbers: the first decides, the next settles its
;; ties, and so on. Smaller goes first; what is equal keeps its order.
;; > (sort-on (lambda (x) (list (abs x))) '(-3 2 -1))
;; = (-1 2 -3)
(define (sort-on key items)
  (sort-by-keys (map key items) items))

;;@doc
;; The list by (key x), a number, smaller first; but of those whose key is at most
;; factor times the smallest that is left, the one that stood first goes first. So
;; near-equals keep their order.
;; > (sort-within 1.10 (lambda (x) x) '(84 80 100))
;; = (84 80 100)
(define (sort-within factor key items)
  (sort-within-keys factor (map key items) items))

;;@doc
;; The list without the items equal to x.
;; > (without 'a '(a b a))
;; = (b)
(define (without x items)
  (filter (lambda (item) (not (equal? item x))) items))

;;@doc
;; The list with each item once, where it stood first.
;; > (unique '(a b a))
;; = (a b)
(define (unique items)
  (if (null? items)
      '()
      (cons (car items) (unique (without (car items) (cdr items))))))

;;@doc
;; The item that (better? it other) prefers to all others; the first of equals.
;; The list must not be empty.
;; > (best-by > '(1 3 2))
;; = 3
(define (best-by better? items)
  (foldl (lambda (item best) (if (better? item best) item best))
         (car items)
         (cdr items)))
