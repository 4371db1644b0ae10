;;; testing.scm --- the tests that a policy file carries, and samples for them.
;;;
;;; The host runs a file's tests when it loads the file, and refuses the tree
;;; when one fails, naming the file, the sentence, what was expected and what came.

(require-builtin repomind/host)
(provide test-module check-equal? check-true
         sample-region sample-client sample-record
         sample-link sample-observation sample-sibling)

;;@doc
;; (test-module "name" check …): the checks, in order, in a scope of their own.
(define-syntax test-module
  (syntax-rules ()
    [(_ name body ...) (let () (begin-tests name) body ... (end-tests))]))

;;@doc
;; A region that no file describes. Its law follows from #:jurisdiction, which
;; is the country unless given; #:rtts is a list such as ((us-east . 70.0)), in ms.
(define (sample-region id
                       #:country [country "US"]
                       #:jurisdiction [jurisdiction #f]
                       #:state [state 'ready]
                       #:primary [primary #f]
                       #:features [features '(full-api websockets)]
                       #:max-instances [max-instances 50]
                       #:latitude [latitude 0.0]
                       #:longitude [longitude 0.0]
                       #:rtts [rtts '()])
  (make-sample-region id country (or jurisdiction country) state primary features
                      max-instances latitude longitude rtts))

;;@doc
;; A group of clients: those of one country, or of none known (#:country #f).
(define (sample-client #:country [country #f]
                       #:continent [continent #f]
                       #:latitude [latitude #f]
                       #:longitude [longitude #f])
  (make-sample-client country continent latitude longitude))

;;@doc
;; One residency case.
(define (sample-record #:class [class 'operational]
                       #:law [law 'none]
                       #:basis [basis 'unstated]
                       #:purpose [purpose 'service])
  (make-sample-record class law basis purpose))

;;@doc
;; A replication link whose oldest unconfirmed record is #:lag ms old.
(define (sample-link #:lag [lag 0])
  (make-sample-link lag))

;;@doc
;; What one peer saw of a region in its window of probes.
(define (sample-observation #:probes [probes 10]
                            #:losses [losses 0]
                            #:losses-in-a-row [losses-in-a-row 0])
  (make-sample-observation probes losses losses-in-a-row))

;;@doc
;; One of several concurrent writes of a key. #:time is in ms since 1970.
(define (sample-sibling #:region [region 'us-east]
                        #:time [time 0]
                        #:value [value ""]
                        #:deleted [deleted #f]
                        #:index [index 0])
  (make-sample-sibling region time value deleted index))
