;;; invariants.scm --- what must never happen, proved for everything that can be.
;;;
;;; (define-invariant "a sentence" (for-all (record region) test …)) is checked for every
;;; combination before a save comes into force; one that fails refuses it and is shown as facts.
;;; The dimensions, each bound to a variable of its name:
;;;
;;;   record                every case of class, law, basis and purpose
;;;   kind                  a record of each class and law, basis and purpose left open
;;;   class law basis purpose state        each as a symbol
;;;   region from to        the regions of the tree
;;;   client                clients of each country, and of none known
;;;   continent             a client of each continent, and of none known
;;;   outage                the regions of the tree, with every set of them down
;;;   world                 the regions of the tree, each of them up, down or drained
;;;
;;; At most two million cases: beyond that, class a dimension more coarsely. Round trips are
;;; left unknown, because they have no finite number of values.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide define-invariant implies serves? serving-ids first-serving
         holds-in? may-travel? personal?)

;;@doc
;; (define-invariant "sentence" (for-all (dimension …) test …)): the last test must be true.
;; > (define-invariant "a region is itself" (for-all (region) (equal? region region)))
(define-syntax define-invariant
  (syntax-rules (for-all)
    [(_ sentence (for-all (dimension ...) body ...))
     (declare-invariant sentence
                        '(dimension ...)
                        (lambda (values) (apply (lambda (dimension ...) body ...) values)))]))

;;@doc
;; #f only where the first is true and the second is not, which is not looked at otherwise.
;; > (implies #f (car '()))
;; = #true
(define-syntax implies
  (syntax-rules ()
    [(_ if-this then-that) (if if-this then-that #t)]))

;;@doc
;; #t for a region that gets traffic.
;; > (serves? (sample-region 'a #:state 'suspect))
;; = #true
;; > (serves? (sample-region 'a #:state 'degraded))
;; = #false
(define (serves? region) (if (member (region-state region) '(ready suspect)) #t #f))

;;@doc
;; The ids of the regions that get traffic.
;; > (serving-ids (list (sample-region 'a) (sample-region 'b #:state 'down)))
;; = (a)
(define (serving-ids regions) (map region-id (filter serves? regions)))

;;@doc
;; The first of the ranked ids that serves, as the runtime chooses it, or #f: refused.
;; > (first-serving '(b a) (list (sample-region 'a) (sample-region 'b #:state 'down)))
;; = a
(define (first-serving ranked regions)
  (define serving (serving-ids regions))
  (first-that (lambda (id) (member id serving)) ranked))

;;@doc
;; #t when a ruling of `residency` lets the region of this id hold the record.
;; > (holds-in? (allow-in '(eu-west) 'home '()) 'eu-west)
;; = #true
;; > (holds-in? (deny 'home) 'eu-west)
;; = #false
(define (holds-in? ruling id)
  (and (equal? (car ruling) 'allow-in) (if (member id (cadr ruling)) #t #f)))

;;@doc
;; #t when a ruling of `transfer` is a yes.
;; > (may-travel? (allow 'free '()))
;; = #true
(define (may-travel? ruling) (equal? (car ruling) 'allow))

;;@doc
;; #t when the class is about a person.
;; > (personal? 'health)
;; = #true
;; > (personal? 'source-code)
;; = #false
(define (personal? class)
  (not (member class '(public operational source-code credentials))))
